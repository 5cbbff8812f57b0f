"""Images per second, and how near they come to the convolutions alone.

    python -m benchmarks.speed [--part PART] [--device cpu|cuda] [--threads N] [--rounds R]
    python -m benchmarks.speed --profile resattn56/optimized/channels_last/bfloat16

Parts: ``main``, every way to run a network beside the floor (its convolutions alone) and pytorchcv's network;
``int8``, the runtimes that know it; ``train``, training steps; ``alternatives``, other networks; ``all``, each of them
in a process of its own. Contenders are timed in turn and the median of the rounds counts. Before that, each one's
logits (in training the loss) are compared with the plain network's; what is wrong, fails or lacks a package is reported
as such and not timed. Weights are random, norms as after training.

On a CPU the parts ``main`` and ``train`` measure twice in one process: with the allocator as it comes (column
``allocator``: ``default``), and with freed memory retained by the process (`timm_resattn.retain_freed_memory`,
``retained``).

Writes results.csv and record.json (command, configuration, commit, hardware, versions) to
benchmarks/results/speed/PART/ and the tables to the pages; with other settings than the tables', to another folder:
``--out``. ``--profile`` instead prints torch's profile of contenders of the part. On a GPU
the folders' names end in ``_cuda``.
"""

import argparse
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.common.files import write_csv, write_json
from benchmarks.common.packages import MissingPackageError
from benchmarks.common.pages import write_block
from benchmarks.common.provenance import check_recordable, provenance
from benchmarks.speed.contenders import (
    PYTORCHCV,
    Contender,
    Forward,
    TrainingStep,
    build,
    check_options,
    create_network,
    images_for,
    live_in,
)
from benchmarks.speed.plans import PARTS, RETAINED, Group, convolutions_of, plan
from benchmarks.speed.report import COMMAND, RECORDS, as_markdown, block, is_half
from benchmarks.speed.timing import interleaved
from timm_resattn.export import INT8_TOLERANCE
from timm_resattn.optimize import retain_freed_memory

BATCH_SIZES = {"cpu": 8, "cuda": 128}
TRAIN_BATCH_SIZES = {"cpu": 16, "cuda": 128}
LEAST_ROUNDS = 5
PACKAGES = ("nncf", "onnx", "onnxruntime", "onnxscript", "openvino", "pytorchcv")
# greatest relative errors of a contender that is timed; cuDNN multiplies float32 in TF32
TOLERANCES = {"cpu": {"float32": 1e-3, "int8": INT8_TOLERANCE}, "cuda": {"float32": 1e-2}}
HALF_TOLERANCE = 5e-2
FIELDS = (
    *("part", "network", "path", "layout", "dtype", "allocator", "status", "reason", "batch_size", "img_size"),
    *("device", "threads", "rounds", "ms", "ms_min", "ms_max", "images_per_second", "floor_share", "vs_pytorchcv"),
    *("relative_error", "gmacs", "ms_per_gmac"),
)


def gmacs_of(model: nn.Module, img_size: int) -> float:
    """Multiply-accumulates of convolutions and classifier for one image, in 10^9."""
    device = next(model.parameters()).device
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(torch.zeros(1, 3, img_size, img_size, device=device))
    return counter.get_total_flops() / 2e9


def relative_error(a: torch.Tensor, b: torch.Tensor) -> float:
    """Euclidean norm of the difference by that of ``b``."""
    a, b = a.float(), b.float()
    return ((a - b).norm() / b.norm()).item()


class Bench:
    """Networks and contenders, made once and kept as long as they are needed.

    Args:
        device: ``"cpu"`` or ``"cuda"``.
        create: Makes a network by its name.
    """

    def __init__(self, device: str, create: Callable[[str], nn.Module] = create_network) -> None:
        self.device, self.create = device, create
        self.networks: dict[str, nn.Module] = {}
        self.ready: dict[Contender, Forward] = {}
        self.steps: dict[Contender, tuple[Callable[[], Any], float]] = {}

    def network(self, name: str) -> nn.Module:
        """The plain network, its norms as after training."""
        if name not in self.networks:
            generator = torch.Generator().manual_seed(1)
            images = torch.randn(2, 3, 224, 224, generator=generator)  # the one size that pytorchcv's networks take
            self.networks[name] = live_in(self.create(name), images).to(self.device)
        return self.networks[name]

    def images(self, group: Group) -> torch.Tensor:
        """The group's batch."""
        generator = torch.Generator().manual_seed(2)
        images = torch.randn(group.batch_size, 3, group.img_size, group.img_size, generator=generator)
        return images.to(self.device)

    def forward(self, contender: Contender, images: torch.Tensor) -> Forward:
        """The contender, ready for images like these."""
        if contender not in self.ready:
            self.ready[contender] = build(contender, self.network(contender.network), images)
        return self.ready[contender]

    def keep(self, contenders: Iterable[Contender]) -> None:
        """Drop all others."""
        kept = set(contenders)
        self.ready = {c: run for c, run in self.ready.items() if c in kept}
        self.steps = {c: step for c, step in self.steps.items() if c in kept}
        names = {contender.network for contender in kept}
        self.networks = {name: model for name, model in self.networks.items() if name in names}

    def prepare(self, contender: Contender, group: Group) -> tuple[Callable[[], Any], float | None]:
        """The call to time, and its relative error against the plain network's logits; none for the floor."""
        images = self.images(group)
        mine = images_for(contender, images)
        call = partial(self.forward(contender, mine), mine)
        if contender.path == "convolutions":
            return call, None
        with torch.no_grad():
            return call, relative_error(call(), self.network(contender.network)(images))

    def prepare_step(self, contender: Contender, group: Group) -> tuple[Callable[[], Any], float]:
        """The training step to time, and its first loss's relative error against the plain network's."""
        if contender not in self.steps:
            images, model = self.images(group), self.network(contender.network)
            loss = TrainingStep(Contender(contender.network, layout="contiguous"), model, images)()
            call = TrainingStep(contender, model, images)
            self.steps[contender] = call, relative_error(call(), loss)
        return self.steps[contender]


def tolerance_of(contender: Contender, device: str) -> float:
    """Greatest relative error with which a contender is timed."""
    return TOLERANCES[device].get(contender.dtype, HALF_TOLERANCE)


def measure(bench: Bench, part: str, group: Group, rounds: int) -> list[dict[str, Any]]:
    """A row for each contender of the group, timed or with the reason why not."""
    calls: dict[Contender, Callable[[], Any]] = {}
    rows: dict[Contender, dict[str, Any]] = {}
    for contender in group.contenders:
        row = rows[contender] = {
            "part": part, "network": contender.network, "path": contender.path, "layout": contender.layout,
            "dtype": contender.dtype, "allocator": group.allocator, "batch_size": group.batch_size,
            "img_size": group.img_size, "device": bench.device, "threads": torch.get_num_threads(), "rounds": rounds,
            "status": "timed",
        }  # fmt: skip
        try:
            row["gmacs"] = gmacs_of(bench.network(contender.network), group.img_size)
            prepare = bench.prepare_step if part == "train" else bench.prepare
            with warnings.catch_warnings():
                warnings.filterwarnings("error", message="torch.compile found no working compiler")
                call, row["relative_error"] = prepare(contender, group)
        except MissingPackageError as error:
            row.update(status="skipped", reason=str(error))
        except Exception as error:  # a compiler or a runtime may fail in any way: reported, and the others go on
            row.update(status="failed", reason=" ".join(f"{type(error).__name__}: {error}".split())[:200])
        else:
            allowed = tolerance_of(contender, bench.device)
            if row["relative_error"] is None or row["relative_error"] <= allowed:
                calls[contender] = call
            else:
                row.update(status="wrong", reason=f"relative error {row['relative_error']:.2g}, over {allowed:g}")
        print(f"{contender.name}: {row.get('reason', 'ready')}", file=sys.stderr, flush=True)
    for contender, seconds in interleaved(calls, rounds).items():
        row, middle = rows[contender], median(seconds)
        row.update(ms=1e3 * middle, ms_min=1e3 * min(seconds), ms_max=1e3 * max(seconds))
        row["images_per_second"] = group.batch_size / middle
        row["ms_per_gmac"] = 1e3 * middle / group.batch_size / row["gmacs"]
    return list(rows.values())


def add_ratios(rows: Sequence[dict[str, Any]]) -> None:
    """Fill in the share of the floor, and the ratio to the fastest way to run pytorchcv's network.

    Both compare at the same batch and input size, in the same type and under the same allocator.
    """

    def where(row: dict[str, Any]) -> tuple:
        return is_half(row), row["batch_size"], row["img_size"], row["allocator"]

    timed = [row for row in rows if row["status"] == "timed"]
    floors: dict[tuple, float] = {}
    ports: dict[tuple, float] = {}
    for row in timed:
        speed = row["images_per_second"]
        if row["path"] == "convolutions":
            floors[(row["network"], *where(row))] = speed
        if row["network"].startswith(PYTORCHCV):
            ports[where(row)] = max(speed, ports.get(where(row), 0.0))
    for row in timed:
        references = {
            "floor_share": floors.get((convolutions_of(row["network"]), *where(row))),
            "vs_pytorchcv": ports.get(where(row)),
        }
        row.update({column: row["images_per_second"] / speed for column, speed in references.items() if speed})


def run_part(bench: Bench, part: str, groups: Sequence[Group], rounds: int) -> list[dict[str, Any]]:
    """Rows of all groups, with their ratios."""
    rows = []
    for index, group in enumerate(groups):
        if group.allocator == RETAINED and not retain_freed_memory():
            group = replace(group, allocator="not retained")
        rows += measure(bench, part, group, rounds)
        bench.keep(groups[index + 1].contenders if index + 1 < len(groups) else ())
    add_ratios(rows)
    return rows


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(COMMAND, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", choices=(*PARTS, "all"), default="main", help="default: main")
    parser.add_argument("--profile", nargs="+", metavar="CONTENDER", help="print operators of these instead of timing")
    parser.add_argument("--only", nargs="+", metavar="TEXT", help="only contenders with one of these in their names")
    parser.add_argument("--model", default="resattn56", help="default: resattn56")
    parser.add_argument("--batch-size", type=int, metavar="B", help="default: 8, to train 16, on a GPU 128")
    parser.add_argument("--img-size", type=int, default=224, metavar="S", help="default: 224")
    parser.add_argument("--rounds", type=int, default=7, metavar="R", help="at least 5; default: 7")
    parser.add_argument("--threads", type=int, metavar="N", help="of each contender; default: torch's")
    parser.add_argument("--device", choices=tuple(BATCH_SIZES), default="cpu", help="default: cpu")
    parser.add_argument("--out", type=Path, default=RECORDS, help="default: benchmarks/results/speed")
    return parser


def command_of(parser: argparse.ArgumentParser, args: argparse.Namespace) -> str:
    """The command that repeats this run."""
    words = [COMMAND]
    for name, value in vars(args).items():
        if value != parser.get_default(name) and name != "out":
            words += [f"--{name.replace('_', '-')}", *map(str, value if isinstance(value, list) else [value])]
    return " ".join(words)


def check(args: argparse.Namespace) -> None:
    """Refuse what can't be measured, before anything is.

    Raises:
        ValueError: An argument is not what it may be.
    """
    if args.rounds < LEAST_ROUNDS:
        raise ValueError(f"--rounds must be at least {LEAST_ROUNDS}; got {args.rounds}")
    if args.part == "int8" and args.device == "cuda":
        raise ValueError("--part int8 is measured on a CPU")
    check_options(args, batch_size=1, img_size=32, threads=1)
    own_settings = args.only or args.batch_size or (args.model, args.img_size) != ("resattn56", 224)
    if args.profile:
        return
    if args.out.resolve() == RECORDS and own_settings:
        raise ValueError("give --out DIR: benchmarks/results holds the results of the default settings only")
    check_recordable(args.out)


def write_results(args: argparse.Namespace, origin: dict[str, Any], rows: list[dict[str, Any]]) -> None:
    """Write the folder of a part, and the pages' tables; ``origin`` is the command and its provenance."""
    folder = args.out / f"{args.part}{'_cuda' if args.device == 'cuda' else ''}"
    write_csv(folder / "results.csv", FIELDS, rows)
    configuration = {key: value for key, value in vars(args).items() if key != "out"}
    write_json(folder / "record.json", {**origin, "configuration": configuration})
    if args.out.resolve() == RECORDS:
        write_block(COMMAND, block())


def print_profiles(args: argparse.Namespace, groups: Sequence[Group]) -> None:
    """Print the operators of the contenders asked for, with their times.

    Raises:
        ValueError: One of them is none of the part's.
    """
    group = groups[-1]
    known = {contender.name: contender for contender in group.contenders}
    for name in args.profile:
        if name not in known:
            raise ValueError(f"--profile takes {', '.join(known)}; got {name!r}")
    torch._inductor.config.cpp.enable_kernel_profile = True  # names for the compiler's own kernels
    if group.allocator == RETAINED:
        retain_freed_memory()
    bench = Bench(args.device)
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if args.device == "cuda" else [])]
    for name in args.profile:
        prepare = bench.prepare_step if args.part == "train" else bench.prepare
        call, _ = prepare(known[name], group)
        for _ in range(2):
            call()
        with profile(activities=activities, record_shapes=True) as profiler:
            call()
        operators = profiler.key_averages(group_by_input_shape=True)
        print(name, operators.table(sort_by=f"self_{args.device}_time_total", row_limit=40), sep="\n")
        bench.keep(())


def raise_recompile_limit() -> None:
    """Let torch.compile take many networks in one process, and fail where it would silently run eager."""
    config = torch._dynamo.config
    for names, value in (
        (("recompile_limit", "cache_size_limit"), 100),  # the second name of each is torch 2.5's
        (("fail_on_recompile_limit_hit", "fail_on_cache_limit_hit"), True),
    ):
        for name in names:
            if hasattr(config, name):
                setattr(config, name, value)
                break


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    parser = build_parser()
    args = parser.parse_args(argv)
    try:
        check(args)
        if args.part == "all":
            parts = [part for part in PARTS if (part, args.device) != ("int8", "cuda")]
            words = sys.argv[1:] if argv is None else argv
            commands = [[sys.executable, "-m", "benchmarks.speed", *words, "--part", part] for part in parts]
            codes = [subprocess.run(command).returncode for command in commands]
            return int(any(codes))
        if args.threads:
            torch.set_num_threads(args.threads)
        # one compiled network more or less must not turn another one's into an eager one
        raise_recompile_limit()
        sizes = TRAIN_BATCH_SIZES if args.part == "train" else BATCH_SIZES
        groups = plan(args.part, args.model, args.batch_size or sizes[args.device], args.img_size, args.device)
        if args.only:
            groups = [group.only(*args.only) for group in groups]
            if not any(group.contenders for group in groups):
                raise ValueError(f"--only {' '.join(args.only)}: no contender has that in its name")
        origin = {"command": command_of(parser, args), **provenance(PACKAGES)}
        if args.profile:
            print_profiles(args, groups)
            return 0
    except (ValueError, MissingPackageError) as error:
        parser.error(str(error))
    rows = run_part(Bench(args.device), args.part, groups, args.rounds)
    write_results(args, origin, rows)
    print(as_markdown(args.out))
    return 0


if __name__ == "__main__":
    sys.exit(main())
