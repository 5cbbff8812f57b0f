"""What `benchmarks.throughput` measured, as tables for the README and as plots."""

import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.common.files import read_csv, write_figure
from benchmarks.contenders import PYTORCHCV
from benchmarks.plans import DEFAULT, RETAINED
from benchmarks.profiles import as_table as profile_table
from benchmarks.speed_targets import Target, as_table

COMMAND = "python -m benchmarks.throughput"
Row = dict[str, str]
IN_TORCH = ("eager", "folded", "optimized_eager", "optimized_compiled", "aotinductor")
PATH_LABELS = {
    "convolutions": "convolutions alone (the floor)",
    "eager": "eager",
    "folded": "`reparameterize_model`, eager",
    "optimized_eager": "`optimize_for_inference(compile=False)`",
    "optimized_compiled": "`optimize_for_inference()`",
    "compiled": "`torch.compile`",
    "aotinductor": "AOTInductor",
    "onnxruntime": "ONNX Runtime",
    "openvino": "OpenVINO",
    "checkpointing": "eager, gradient checkpointing",
}
FP32 = Target("fp32 inference, best path, against pytorchcv as its users run it (eager, contiguous)", 2.0, 2.5)
FP32_SHARE = Target("fp32 inference, best path, share of the floor", 0.9, 1.0, "%")
FOLDED_SHARE = Target("fp32 inference, eager after folding, channels_last, share of the floor", 0.8, 0.88, "%")
BF16 = Target("bf16 inference, best path, against pytorchcv's fp32", 3.8, 5.0)
BF16_SHARE = Target("bf16 inference, best path, share of its floor", 0.85, 0.97, "%")
TRAIN = Target("training step, fp32, same topology, against pytorchcv", 1.3, 1.8)
CHECKPOINTING = Target("training step with gradient checkpointing, time against without", 1.35, at_most=True)
CUDA_SHARES = {
    "float32": Target("fp32 inference, compiled, share of the floor", 0.9, unit="%"),
    "bfloat16": Target("bf16 inference, compiled, share of its floor", 0.9, unit="%"),
}
RESNET200 = Target("Attention-92 against ResNet-200, images per second by the ratio of MACs", 1.0)


def is_ours(row: Row) -> bool:
    """Whether a row is of a network of this package."""
    return row["network"].startswith("resattn")


def is_half(row: Row) -> bool:
    """Whether the arithmetic is in bfloat16."""
    return row["dtype"] != "float32"


def name_of(row: Row) -> str:
    """The contender's name."""
    return "/".join(row[column] for column in ("network", "path", "layout", "dtype"))


def best(
    rows: Iterable[Row], column: str, accept: Callable[[Row], bool], least: bool = False
) -> tuple[float | None, str]:
    """The greatest (or least) value of a column among the rows that ``accept`` takes, and whose it is."""
    found = [row for row in rows if row[column] and accept(row)]  # what was not measured has no value
    if not found:
        return None, ""
    row = (min if least else max)(found, key=lambda row: float(row[column]))
    return float(row[column]), name_of(row)


def checkpointing_time(rows: Sequence[Row]) -> tuple[float | None, str]:
    """Time of a step with checkpointing by that without, both in float32 and channels_last, the twin of the port's."""
    steps = {
        (row["network"], row["path"]): float(row["ms"])
        for row in rows
        if row["status"] == "timed"
        and is_ours(row)
        and not is_half(row)
        and row["layout"] == "channels_last"
        and row["allocator"] != DEFAULT
    }
    for network, path in steps:
        if path == "checkpointing" and (network, "eager") in steps:
            return steps[network, path] / steps[network, "eager"], f"{network}/checkpointing/channels_last/float32"
    return None, ""


def targets(folder: Path, suffix: str = "") -> list[dict[str, Any]]:
    """The numbers to reach, judged by the results in ``folder``."""
    main = read_csv(folder / f"throughput_main{suffix}.csv")
    train = read_csv(folder / f"throughput_train{suffix}.csv")
    if suffix:
        alternatives = read_csv(folder / f"throughput_alternatives{suffix}.csv")
        compiled = [row for row in main if row["path"] == "optimized_compiled"]
        return [
            *(
                target.judge(*best(compiled, "floor_share", lambda row, dtype=dtype: row["dtype"] == dtype))
                for dtype, target in CUDA_SHARES.items()
            ),
            RESNET200.judge(*by_macs(alternatives, "resattn92", "resnet200")),
        ]
    ours = [row for row in main if is_ours(row) and row["path"] in IN_TORCH]
    full, half = [row for row in ours if not is_half(row)], [row for row in ours if is_half(row)]
    steps = [row for row in train if row["network"].endswith("_dskip") and row["path"] != "checkpointing"]

    def after_folding(row: Row) -> bool:
        return row["path"] in ("folded", "optimized_eager")

    def either(row: Row) -> bool:
        return True

    return [
        FP32.judge(*best(full, "vs_pytorchcv_default", either)),
        FP32_SHARE.judge(*best(full, "floor_share", lambda row: row["allocator"] == RETAINED)),
        FOLDED_SHARE.judge(*best(full, "floor_share", lambda row: after_folding(row) and row["allocator"] == RETAINED)),
        BF16.judge(*best(half, "vs_pytorchcv_default", either)),
        BF16_SHARE.judge(*best(half, "floor_share", lambda row: row["allocator"] == RETAINED)),
        TRAIN.judge(*best(steps, "vs_pytorchcv_default", lambda row: not is_half(row))),
        CHECKPOINTING.judge(*checkpointing_time(train)),
    ]


def by_macs(rows: Sequence[Row], network: str, other: str) -> tuple[float | None, str]:
    """Time per multiply-accumulate of ``other`` by that of ``network``, each by its own best path."""
    least = {}
    for name in (network, other):
        times = [float(row["ms_per_gmac"]) for row in rows if row["network"] == name and row["status"] == "timed"]
        if not times:
            return None, ""
        least[name] = min(times)
    return least[other] / least[network], f"{network} and {other}"


def label_of(row: Row) -> str:
    """How a table calls a contender."""
    network = row["network"].replace(PYTORCHCV, "pytorchcv ")
    layout = f", {row['layout']}" if row["path"] in ("eager", "checkpointing") else ""
    return f"`{network}`, {PATH_LABELS[row['path']]}{layout}"


def cells_of(row: Row | None, columns: Sequence[str]) -> list[str]:
    """Cells of a table: the speed in images per second, shares in percent, ratios."""
    if row is None:
        return [""] * len(columns)
    if row["status"] != "timed":
        return [row["status"], *[""] * (len(columns) - 1)]
    cells = []
    for column in columns:
        value = row[column]
        if not value:
            cells.append("")
        elif column == "floor_share":
            cells.append(f"{100 * float(value):.0f}%")
        elif column.startswith("vs_"):
            cells.append(f"{float(value):.2f}x")
        else:
            cells.append(f"{float(value):.1f}")
    return cells


def speed_table(rows: Sequence[Row], columns: Sequence[str], titles: Sequence[str], half_column: bool = True) -> str:
    """Contenders by rows; the columns once for float32 and once for bfloat16."""
    kinds = (False, True) if half_column else (False,)
    head = [f"{kind} {title}" for kind in ("fp32", "bf16")[: len(kinds)] for title in titles]
    lines = ["| | " + " | ".join(head) + " |", "|---|" + "---:|" * len(head)]
    lines_of: dict[str, dict[bool, Row]] = {}
    for row in rows:
        lines_of.setdefault(label_of(row), {})[is_half(row)] = row
    for label, by_kind in lines_of.items():
        cells = [cell for kind in kinds for cell in cells_of(by_kind.get(kind), columns)]
        lines.append(f"| {label} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def main_table(rows: Sequence[Row]) -> str:
    """Every way to run the network, its speed at the best state of the allocator that was measured."""
    last = rows[-1]["allocator"]
    default = {name_of(row): row for row in rows if row["allocator"] == DEFAULT}
    shown = [
        {**row, "default": default.get(name_of(row), {}).get("images_per_second", "")}
        for row in rows
        if row["allocator"] == last
    ]
    columns = ("images_per_second", "floor_share", "vs_pytorchcv_default")
    titles = ("images/s", "of the floor", "pytorchcv")
    if last != RETAINED:
        return speed_table(shown, columns, titles)
    return speed_table(shown, ("default", *columns), ("images/s, default allocator", *titles))


def circumstances(folder: Path, part: str) -> str:
    """Hardware, versions and command of a part, in a sentence."""
    path = folder / "throughput.json"
    content = json.loads(path.read_text()) if path.is_file() else {}
    if part not in content:
        return ""
    record = content[part]
    hardware, versions = record["hardware"], record["versions"]
    where = hardware["gpu"] if part.endswith("_cuda") else f"{hardware['cpu']}, {hardware['threads']} threads"
    packages = ("torch", "timm", "pytorchcv", "openvino", "onnxruntime")
    names = ", ".join(f"{name} {versions[name]}" for name in packages if name in versions)
    return f"{where}; {names}; `{record['command']}`."


def not_measured(rows: Sequence[Row]) -> str:
    """What was skipped, failed or was wrong, with the reason."""
    lines = [f"* `{name_of(row)}` {row['status']}: {row['reason']}" for row in rows if row["status"] != "timed"]
    return "\n".join(dict.fromkeys(lines)) + "\n" if lines else ""


def part_markdown(folder: Path, part: str, suffix: str) -> str:
    """Heading, table, plot and circumstances of a part; nothing if it was not measured."""
    rows = read_csv(folder / f"throughput_{part}{suffix}.csv")
    if not rows:
        return ""
    last = [row for row in rows if row["allocator"] == rows[-1]["allocator"]]
    batch, side = rows[0]["batch_size"], rows[0]["img_size"]
    if part == "main":
        title, table = f"Inference, batch {batch}, {side}x{side}", main_table(rows)
    elif part == "train":
        columns = ("images_per_second", "vs_pytorchcv", "vs_pytorchcv_default")
        titles = ("images/s", "pytorchcv, same allocator", "pytorchcv")
        title, table = f"A training step, batch {batch}, {side}x{side}", speed_table(last, columns, titles)
    elif part == "alternatives":
        title = f"Other networks, batch {batch}, {side}x{side}"
        table = speed_table(last, ("images_per_second", "ms_per_gmac"), ("images/s", "ms per GMAC"))
    else:
        title, table = f"Time per multiply-accumulate by {part}", ""
    pieces = [f"**{title}.** {circumstances(folder, part + suffix)}\n", table, not_measured(rows)]
    picture = f"throughput_{part}{suffix}.png"
    if part in ("batch", "size", "depth") and (folder / picture).is_file():
        pieces.append(f"![{title}](benchmarks/results/{picture})\n")
    return "\n".join(piece for piece in pieces if piece)


def as_markdown(folder: Path) -> str:
    """The README's block: the numbers to reach, then the parts."""
    blocks = [as_table(targets(folder))]
    for suffix in ("", "_cuda"):
        parts = ("main", "train", "alternatives", "batch", "size", "depth")
        blocks += [part_markdown(folder, part, suffix) for part in parts]
        if suffix and any((folder / f"throughput_{part}{suffix}.csv").is_file() for part in parts):
            blocks.append(as_table(targets(folder, suffix)))
        profile = read_csv(folder / f"throughput_profile{suffix}.csv")
        if profile:
            blocks += [
                f"**Where the time goes.** {circumstances(folder, 'profile' + suffix)}\n",
                profile_table(profile),
            ]
    return "\n".join(block for block in blocks if block)


def _bars(axes: Any, rows: Sequence[Row]) -> None:
    """Images per second, float32 and bfloat16 side by side."""
    last = [row for row in rows if row["allocator"] == rows[-1]["allocator"] and row["status"] == "timed"]
    labels = list(dict.fromkeys(label_of(row).replace("`", "") for row in last))
    for half, color, offset in ((False, "tab:gray", -0.2), (True, "tab:red", 0.2)):
        chosen = [row for row in last if is_half(row) == half]
        places = [labels.index(label_of(row).replace("`", "")) + offset for row in chosen]
        speeds = [float(row["images_per_second"]) for row in chosen]
        bars = axes.barh(places, speeds, height=0.4, color=color, label="bf16" if half else "fp32")
        axes.bar_label(bars, fmt="%.1f", padding=2, fontsize=7)
    axes.set_yticks(range(len(labels)), labels, fontsize=8)
    axes.invert_yaxis()
    axes.set(xlabel="images per second")
    axes.margins(x=0.1)


def _lines(axes: Any, rows: Sequence[Row], part: str) -> None:
    """Time per multiply-accumulate as batch, input or depth grow."""
    timed = [row for row in rows if row["status"] == "timed"]
    curves: dict[str, list[tuple[float, float]]] = {}
    for row in timed:
        label = label_of(row).replace("`", "") + (", bf16" if is_half(row) else "")
        if part == "depth":
            label = label.partition(", ")[2]
            x = float(row["network"].removeprefix("resattn"))
        else:
            x = float(row["batch_size" if part == "batch" else "img_size"])
        curves.setdefault(label, []).append((x, float(row["ms_per_gmac"])))
    for label, points in curves.items():
        axes.plot(*zip(*points, strict=True), marker="o", markersize=3, label=label)
    axes.set_xscale("log", base=2)
    ticks = sorted({x for points in curves.values() for x, _ in points})
    axes.set_xticks(ticks, [f"{x:g}" for x in ticks])
    axes.minorticks_off()
    axes.set(xlabel={"batch": "batch size", "size": "input side", "depth": "depth"}[part], ylabel="ms per GMAC")
    axes.set_ylim(bottom=0)
    axes.legend(fontsize=7)


def plot(part: str, rows: Sequence[Row], path: Path) -> None:
    """Draw a part's rows, as they stand in its file."""
    from matplotlib.figure import Figure

    bars = part in ("main", "train", "alternatives")
    contenders = len({label_of(row) for row in rows})
    figure = Figure(figsize=(8, 1 + 0.35 * contenders) if bars else (6.5, 4), layout="constrained")
    axes = figure.add_subplot()
    if bars:
        _bars(axes, rows)
        axes.legend()
    else:
        _lines(axes, rows, part)
    axes.set_title(f"{COMMAND.removeprefix('python -m ')} --part {part}", fontsize=9)
    axes.grid(alpha=0.3)
    write_figure(path, figure)
