"""Run tables of the paper on CIFAR again, all their networks at one schedule.

    python -m benchmarks.paper --table N ... [--figure 4] --data-dir DIR [--epochs E] [--seeds S ...] [--rows ROW ...]

Each network is trained by `benchmarks.cifar` with the paper's recipe (``--recipe modern`` and every value of a recipe
can be asked for instead; with fewer epochs the learning rate falls at the same shares of the run), seed by seed, once
for all tables that it stands in. A run is kept in ``--work-dir`` by its content: it is not repeated and goes on where
it stopped. Each finished run is recorded in ``--results-dir`` and adds a line to ``table_N/results.csv`` or
``figure_4/results.csv`` there; ``python -m benchmarks.paper.report`` renders them.

``--jobs J`` trains J networks at a time, which small networks on one GPU gain from.
"""

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.cifar.arguments import device_of, recipe_of
from benchmarks.cifar.data import CLASSES
from benchmarks.cifar.many import add_arguments, carry_out, check_arguments, folder_of
from benchmarks.cifar.results import Results, schedule_of
from benchmarks.cifar.run import Run
from benchmarks.paper.responses import figure_row
from benchmarks.paper.results import FIELDS, FIGURE, FIGURE_FIELDS, NAMED, RECORDS, file_of, row_of
from benchmarks.paper.tables import TABLES, Cell


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "python -m benchmarks.paper", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--table", nargs="+", default=(), choices=tuple(TABLES), metavar="N", help=", ".join(TABLES))
    parser.add_argument("--figure", choices=("4",))
    parser.add_argument("--cifar100-dir", type=Path, help="CIFAR-100, for its column of Table 6 (default: left out)")
    parser.add_argument("--rows", nargs="+", metavar="ROW", help="only these rows, as 'Attention-56' (default: all)")
    add_arguments(parser, "paper", RECORDS)
    return parser


def cells_of(names: Sequence[str], rows: list[str] | None, with_cifar100: bool) -> list[tuple[str, Cell]]:
    """The cells that are asked for, with the names of their files; raises a `ValueError` if a row is of none."""
    datasets = CLASSES if with_cifar100 else ("cifar10",)
    found = [(name, cell) for name in names for cell in NAMED[name].cells if cell.dataset in datasets]
    known = {cell.row: None for _, cell in found}
    for row in rows or ():
        if row not in known:
            raise ValueError(f"--rows must be of {', '.join(map(repr, known))}; got {row!r}")
    return [(name, cell) for name, cell in found if cell.row in (rows or known)]


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns 0, also after ``--max-seconds``, or the exit status of a run that failed."""
    began = time.monotonic()
    parser = build_parser()
    args = parser.parse_args(argv)
    names = [*dict.fromkeys(f"table_{number}" for number in args.table), *([FIGURE] if args.figure else [])]
    if not names:
        parser.error("give --table or --figure")
    data_dirs = {"cifar10": args.data_dir, "cifar100": args.cifar100_dir}
    places: dict[Path, list[tuple[str, Cell]]] = {}  # where each run stands
    runs: dict[Path, Run] = {}
    try:
        check_arguments(args)
        recipe = recipe_of(args)
        cells = cells_of(names, args.rows, bool(args.cifar100_dir))
        for seed in args.seeds:
            for name, cell in cells:
                run = Run(
                    cell.model,
                    recipe,
                    model_kwargs=dict(cell.model_kwargs),
                    dataset=cell.dataset,
                    images=args.images,
                    label_noise=cell.label_noise,
                    seed=seed,
                    amp=args.amp,
                )
                folder = folder_of(run, args.work_dir)
                runs[folder] = run
                places.setdefault(folder, []).append((name, cell))
        schedule = schedule_of(run)
        results = {
            name: Results(
                file_of(args.results_dir, name), FIGURE_FIELDS if name == FIGURE else FIELDS, schedule, args.replace
            )
            for name in names
        }
    except ValueError as error:
        parser.error(str(error))

    def done(_: int, folder: Path) -> None:
        run = runs[folder]
        for name, cell in places[folder]:
            if name == FIGURE:
                row = figure_row(cell, run, folder, args.data_dir, device_of(args.device))
            else:
                row = row_of(name, cell, folder, run)
            results[name].add(row)
            print(f"{name}: {cell.row}, {cell.column}, seed {run.seed}: error {row['error']:.2f}%", flush=True)

    return carry_out([*runs.values()], args, data_dirs, began, done)


if __name__ == "__main__":
    sys.exit(main())
