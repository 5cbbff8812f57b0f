"""What `benchmarks.speed` measured, as tables for the pages."""

import json
from collections.abc import Sequence
from pathlib import Path

from benchmarks.common.files import read_csv
from benchmarks.common.provenance import NOT_INSTALLED, RESULTS
from benchmarks.common.tables import counted, markdown_table
from benchmarks.speed.contenders import PYTORCHCV
from benchmarks.speed.plans import DEFAULT, PARTS, RETAINED

COMMAND = "python -m benchmarks.speed"
RECORDS = RESULTS / "speed"
Row = dict[str, str]
OURS = ("eager", "folded", "optimized")
PATH_LABELS = {
    "convolutions": "convolutions alone (the floor)",
    "eager": "eager",
    "folded": "`optimize_for_inference(compile=False)`",
    "optimized": "`optimize_for_inference()`",
    "compiled": "`torch.compile`",
    "aotinductor": "AOTInductor",
    "onnxruntime": "ONNX Runtime",
    "openvino": "OpenVINO",
    "checkpointing": "eager, gradient checkpointing",
}
TYPES = ("float32", "bfloat16", "int8")
PEERS = ("onnxruntime", "openvino")  # other ways to run the network of ours


def type_of(row: Row) -> str:
    """The type of the arithmetic: one of `TYPES`."""
    return "bfloat16" if row["dtype"] == "autocast" else row["dtype"]


def is_half(row: Row) -> bool:
    """Whether the arithmetic is in bfloat16."""
    return type_of(row) == "bfloat16"


def name_of(row: Row) -> str:
    """The contender's name."""
    return "/".join(row[column] for column in ("network", "path", "layout", "dtype"))


def headline(rows: Sequence[Row]) -> str:
    """Our fastest path beside each peer's fastest one, of the same type and under the same allocator, as Markdown."""
    timed = [row for row in rows if row["status"] == "timed" and row["allocator"] == rows[-1]["allocator"]]

    def best(name: str, half: bool) -> Row | None:
        found = []
        for row in timed:
            port = row["network"].startswith(PYTORCHCV)
            own = {"ours": not port and row["path"] in OURS, "pytorchcv": port}.get(name, row["path"] == name)
            if own and is_half(row) == half:
                found.append(row)
        return max(found, key=lambda row: float(row["images_per_second"]), default=None)

    body = []
    for name in ("ours", "pytorchcv", *PEERS):
        for half in (False, True):
            ours, theirs = best("ours", half), best(name, half)
            if ours and theirs:
                speeds = float(ours["images_per_second"]), float(theirs["images_per_second"])
                ratio = f"{speeds[0] / speeds[1]:.2f}x" if name != "ours" else ""
                body.append((label_of(theirs, True), "bf16" if half else "fp32", f"{speeds[1]:.1f}", ratio))
    return markdown_table(("fastest path", "type", "images/s", "ours against it"), body, text_columns=2) if body else ""


def label_of(row: Row, layout: bool = False) -> str:
    """How a table calls a contender; with its layout where there are several, or by ``layout``."""
    network = row["network"].replace(PYTORCHCV, "pytorchcv ")
    told = f", {row['layout']}" if layout or row["path"] in ("eager", "checkpointing") else ""
    return f"`{network}`, {PATH_LABELS[row['path']]}{told}"


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
    body = []
    lines_of: dict[str, dict[bool, Row]] = {}
    for row in rows:
        lines_of.setdefault(label_of(row), {})[is_half(row)] = row
    for label, by_kind in lines_of.items():
        cells = [cell for kind in kinds for cell in cells_of(by_kind.get(kind), columns)]
        body.append((label, *cells))
    return markdown_table(("", *head), body)


def int8_table(rows: Sequence[Row]) -> str:
    """Runtimes by rows: their speed in each type, and int8 against float32."""
    by_path: dict[str, dict[str, Row]] = {}
    for row in rows:
        by_path.setdefault(label_of(row), {})[row["dtype"]] = row
    body = []
    for label, by_type in by_path.items():
        cells = [cells_of(by_type.get(dtype), ("images_per_second",))[0] for dtype in TYPES]
        speeds = [by_type.get(dtype, {}).get("images_per_second") for dtype in ("int8", "float32")]
        ratio = f"{float(speeds[0]) / float(speeds[1]):.2f}x" if all(speeds) else ""
        body.append((label, *cells, ratio))
    return markdown_table(("", "fp32 images/s", "bf16 images/s", "int8 images/s", "int8 against fp32"), body)


def main_table(rows: Sequence[Row]) -> str:
    """Every way to run the network, its speed at the best state of the allocator that was measured."""
    last = rows[-1]["allocator"]
    default = {name_of(row): row for row in rows if row["allocator"] == DEFAULT}
    shown = [
        {**row, "default": default.get(name_of(row), {}).get("images_per_second", "")}
        for row in rows
        if row["allocator"] == last
    ]
    columns = ("images_per_second", "floor_share", "vs_pytorchcv")
    titles = ("images/s", "of the floor", "pytorchcv's best")
    if last != RETAINED:
        return speed_table(shown, columns, titles)
    return speed_table(shown, ("default", *columns), ("images/s, default allocator", *titles))


def circumstances(folder: Path) -> str:
    """Hardware, versions and the command of what was measured in a folder, in a sentence."""
    record = json.loads((folder / "record.json").read_text())
    hardware, versions = record["hardware"], record["versions"]
    cpu = f"{hardware['cpu']}, {counted(hardware['threads'], 'thread')}"
    packages = ("torch", "timm", "pytorchcv", "openvino", "onnxruntime", "nncf")
    names = ", ".join(
        f"{name} {versions[name]}" for name in packages if versions.get(name, NOT_INSTALLED) != NOT_INSTALLED
    )
    return f"{hardware['gpu'] or cpu}; {names}; `{record['command']}`."


def not_measured(rows: Sequence[Row]) -> str:
    """What was skipped, failed or was wrong, at which sizes, with the first reason."""
    groups: dict[str, list[Row]] = {}
    for row in rows:
        if row["status"] != "timed":
            groups.setdefault(f"`{name_of(row)}` {row['status']}", []).append(row)
    lines = [
        f"* {what} at {', '.join(dict.fromkeys(row['img_size'] for row in group))} pixels: {group[0]['reason']}"
        for what, group in groups.items()
    ]
    return "\n".join(lines) + "\n" if lines else ""


def part_markdown(folder: Path, part: str) -> str:
    """Heading, table and circumstances of a part, whose results are in ``folder``."""
    rows = read_csv(folder / "results.csv")
    last = [row for row in rows if row["allocator"] == rows[-1]["allocator"]]
    batch, side = rows[0]["batch_size"], rows[0]["img_size"]
    if part == "main":
        title, table = f"Inference, batch {batch}, {side}x{side}", f"{headline(rows)}\n{main_table(rows)}"
    elif part == "int8":
        title, table = f"int8, batch {batch}, {side}x{side}", int8_table(rows)
    elif part == "train":
        columns, titles = ("images_per_second", "vs_pytorchcv"), ("images/s", "pytorchcv's best")
        title, table = f"A training step, batch {batch}, {side}x{side}", speed_table(last, columns, titles)
    else:
        title = f"Other networks, batch {batch}, {side}x{side}"
        table = speed_table(last, ("images_per_second", "ms_per_gmac"), ("images/s", "ms per GMAC"))
    pieces = (f"**{title}.** {circumstances(folder)}\n", table, not_measured(rows))
    return "\n".join(piece for piece in pieces if piece)


def as_markdown(records: Path) -> str:
    """All parts that there are."""
    blocks = []
    for suffix in ("", "_cuda"):
        folders = {part: records / f"{part}{suffix}" for part in PARTS}
        blocks += [
            part_markdown(folder, part) for part, folder in folders.items() if (folder / "results.csv").is_file()
        ]
    return "\n".join(blocks)


def block() -> str:
    """This repository's results."""
    return as_markdown(RECORDS)
