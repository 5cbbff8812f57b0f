"""Run a table of the paper on CIFAR again, all its networks at one schedule.

    python -m benchmarks.paper --table N --data-dir DIR [--epochs E] [--seeds S ...] [--rows ROW ...] [--device D]
    python -m benchmarks.paper --figure 4 --data-dir DIR [...]

Each network is trained by `benchmarks.cifar` with the paper's recipe (``--recipe modern`` and every value of a recipe
can be asked for instead; with fewer epochs the learning rate falls at the same shares of the run). A run is kept in
``--work-dir`` by its content: it is not repeated, it goes on where it stopped, and tables share it. Each finished run
is recorded in ``--results-dir`` and adds a line to ``table_N/results.csv`` or ``figure_4/results.csv`` there;
``python -m benchmarks.paper.report`` renders them.

``--jobs J`` trains J networks at a time, which small networks on one GPU gain from.
"""

import argparse
import sys
import time
from pathlib import Path

from benchmarks.cifar.arguments import device_of, recipe_of
from benchmarks.cifar.data import CLASSES
from benchmarks.cifar.many import add_arguments, carry_out, check_arguments
from benchmarks.cifar.results import Results, schedule_of
from benchmarks.cifar.run import Run
from benchmarks.paper.responses import figure_row
from benchmarks.paper.results import FIELDS, FIGURE, FIGURE_FIELDS, RECORDS, file_of, row_of
from benchmarks.paper.tables import FIGURE4, TABLES, Cell, Table


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "python -m benchmarks.paper", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--table", choices=tuple(TABLES))
    which.add_argument("--figure", choices=("4",))
    parser.add_argument("--cifar100-dir", type=Path, help="CIFAR-100, for its column of Table 6 (default: left out)")
    parser.add_argument("--rows", nargs="+", metavar="ROW", help="only these rows, as 'Attention-56' (default: all)")
    add_arguments(parser, "paper", RECORDS)
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
        check_arguments(args)
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
        path = file_of(args.results_dir, f"table_{args.table}" if args.table else FIGURE)
        results = Results(path, FIELDS if args.table else FIGURE_FIELDS, schedule_of(runs[0]), args.replace)
    except ValueError as error:
        parser.error(str(error))

    def done(index: int, folder: Path) -> None:
        run, cell = runs[index], cells[index]
        if args.figure:
            row = figure_row(cell, run, folder, args.data_dir, device_of(args.device))
        else:
            row = row_of(args.table, cell, folder, run)
        results.add(row)
        print(f"{cell.row}, {cell.column}, seed {run.seed}: error {row['error']:.2f}%", flush=True)

    return carry_out(runs, args, data_dirs, began, done)


if __name__ == "__main__":
    sys.exit(main())
