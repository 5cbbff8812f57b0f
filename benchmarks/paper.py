"""Run a table of the paper on CIFAR again, all its networks at one schedule.

    python -m benchmarks.paper --table N --data-dir DIR [--epochs E] [--seeds S ...] [--rows ROW ...] [--device D]
    python -m benchmarks.paper --figure 4 --data-dir DIR [...]

Each network is trained by `benchmarks.cifar` with the paper's recipe (``--recipe modern`` and every value of a recipe
can be asked for instead; with fewer epochs the learning rate falls at the same shares of the run). A run is kept in
``--work-dir`` by its content: it is not repeated, it goes on where it stopped, and tables share it. Each finished run
adds a line to ``table_N.csv`` or ``figure_4.csv`` in ``--results-dir``; ``python -m benchmarks.report`` renders them.

``--jobs J`` trains J networks at a time, which small networks on one GPU gain from.
"""

import argparse
import hashlib
import json
import math
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.cifar import add_device_arguments, check_least, device_of
from benchmarks.cifar_data import CLASSES
from benchmarks.cifar_recipes import add_recipe_arguments, recipe_of
from benchmarks.cifar_trainer import Run
from benchmarks.paper_results import FIELDS, FIGURE_FIELDS, RESULTS, Results, row_of, schedule_of
from benchmarks.paper_tables import FIGURE4, TABLES, Cell, Table
from benchmarks.provenance import ROOT
from benchmarks.responses import figure_row


def folder_of(run: Run, work_dir: Path) -> Path:
    """The folder of a run: its content decides it."""
    digest = hashlib.sha256(json.dumps(run.as_dict(), sort_keys=True).encode()).hexdigest()
    return work_dir / f"{run.model}_seed{run.seed}_{digest[:12]}"


def train_all(
    work: list[tuple[Run, Path]],
    command: Callable[[Run, Path], list[str]],
    jobs: int,
    deadline: float,
    done: Callable[[int], None],
) -> int:
    """Train what is not finished yet, ``jobs`` at a time; call ``done`` with the index of each that is.

    Returns 0, also where time ran out, or the exit status of the first run that failed or was told to stop.
    """
    waiting = deque(enumerate(work))
    active: dict[int, subprocess.Popen] = {}
    status = 0

    def stop(*_: Any) -> None:
        waiting.clear()
        for process in active.values():
            process.terminate()

    previous = signal.signal(signal.SIGTERM, stop)
    try:
        while waiting or active:
            if waiting and len(active) < jobs:
                index, (run, folder) = waiting.popleft()
                left = deadline - time.monotonic()
                if is_finished(folder):
                    done(index)
                elif left > 0:
                    limit = [] if math.isinf(left) else ["--max-seconds", f"{left:.0f}"]
                    active[index] = subprocess.Popen(command(run, folder) + limit, cwd=ROOT)
                continue
            ended = {index: process for index, process in active.items() if process.poll() is not None}
            for index, process in ended.items():
                del active[index]
                if process.returncode:
                    status = status or process.returncode
                    waiting.clear()
                elif is_finished(work[index][1]):
                    done(index)
            time.sleep(0 if ended else 0.1)
    finally:
        signal.signal(signal.SIGTERM, previous)
    return status


def is_finished(folder: Path) -> bool:
    """Whether the run in ``folder`` has come to its end."""
    return (folder / "result.json").is_file()


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "python -m benchmarks.paper", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--table", choices=tuple(TABLES))
    which.add_argument("--figure", choices=("4",))
    parser.add_argument("--data-dir", type=Path, required=True, help="CIFAR-10; see benchmarks.cifar_data.load_cifar")
    parser.add_argument("--cifar100-dir", type=Path, help="CIFAR-100, for its column of Table 6 (default: left out)")
    parser.add_argument("--rows", nargs="+", metavar="ROW", help="only these rows, as 'Attention-56' (default: all)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], metavar="S", help="default: 0")
    parser.add_argument("--images", type=int, metavar="N", help="train on the first N training images (default: all)")
    parser.add_argument("--jobs", type=int, default=1, metavar="J", help="networks trained at a time (default: 1)")
    parser.add_argument("--max-seconds", type=float, metavar="S", help="stop with checkpoints after S seconds, exit 0")
    parser.add_argument("--work-dir", type=Path, default=ROOT / "runs" / "paper", help="default: runs/paper")
    parser.add_argument("--results-dir", type=Path, default=RESULTS, help="default: benchmarks/results")
    parser.add_argument("--replace", action="store_true", help="replace results of a longer schedule")
    add_device_arguments(parser)
    add_recipe_arguments(parser, "paper")
    return parser


def cells_of(table: Table, rows: list[str] | None, with_cifar100: bool) -> list[Cell]:
    """The cells that are asked for; raises a `ValueError` if a row is none of the table's."""
    for row in rows or ():
        if row not in table.rows():
            raise ValueError(f"--rows must be of {', '.join(map(repr, table.rows()))}; got {row!r}")
    datasets = CLASSES if with_cifar100 else ("cifar10",)
    return [cell for cell in table.cells if cell.row in (rows or table.rows()) and cell.dataset in datasets]


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns 0, also after ``--max-seconds``, or the exit status of a run that failed."""
    began = time.monotonic()
    parser = build_parser()
    args = parser.parse_args(argv)
    table = TABLES[args.table] if args.table else FIGURE4
    data_dirs = {"cifar10": args.data_dir, "cifar100": args.cifar100_dir}
    try:
        device = device_of(args.device)
        check_least("--jobs", args.jobs, 1)
        check_least("--max-seconds", args.max_seconds, 0)
        if not args.data_dir.is_dir():
            raise ValueError(f"--data-dir {args.data_dir} is no folder")
        recipe = recipe_of(args)
        cells = cells_of(table, args.rows, bool(args.cifar100_dir)) * len(args.seeds)
        seeds = [seed for seed in args.seeds for _ in range(len(cells) // len(args.seeds))]
        runs = [
            Run(
                cell.model,
                recipe,
                model_kwargs=dict(cell.model_kwargs),
                dataset=cell.dataset,
                images=args.images,
                label_noise=cell.label_noise,
                seed=seed,
                amp=args.amp,
            )
            for cell, seed in zip(cells, seeds, strict=True)
        ]
        path = args.results_dir / (f"table_{args.table}.csv" if args.table else "figure_4.csv")
        results = Results(path, FIELDS if args.table else FIGURE_FIELDS, schedule_of(runs[0]), args.replace)
    except ValueError as error:
        parser.error(str(error))
    work = [(run, folder_of(run, args.work_dir)) for run in runs]

    def command(run: Run, folder: Path) -> list[str]:
        where = ["--data-dir", str(data_dirs[run.dataset].resolve()), "--device", args.device]
        how = ["--compile", args.compile] if args.compile else []
        out = ["--resume", "--out", str(folder.resolve())]
        return [sys.executable, "-m", "benchmarks.cifar", *run.arguments(), *where, *how, *out]

    def done(index: int) -> None:
        (run, folder), cell = work[index], cells[index]
        if args.figure:
            row = figure_row(cell, run, folder, data_dirs[run.dataset], device)
        else:
            row = row_of(args.table, cell, folder, run)
        results.add(row)
        print(f"{cell.row}, {cell.column}, seed {run.seed}: error {row['error']:.2f}%", flush=True)

    deadline = math.inf if args.max_seconds is None else began + args.max_seconds
    status = train_all(work, command, args.jobs, deadline, done)
    left = sum(not is_finished(folder) for _, folder in work)
    if left:
        print(f"{left} of {len(work)} runs are not at their end; the same command goes on with them", file=sys.stderr)
    return status


if __name__ == "__main__":
    sys.exit(main())
