"""Lines of the paper's tables as we measured them: one a network and seed, all of a file at one schedule."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.cifar.results import OUTCOME, errors_by_seed, outcome_of, schedule_of
from benchmarks.cifar.run import Run
from benchmarks.common.files import read_csv
from benchmarks.common.provenance import RESULTS
from benchmarks.paper.tables import FIGURE4, TABLES, Cell

RECORDS = RESULTS / "paper"
FIELDS = ("table", "row", "column", "paper_error", "paper_parameters_m", *OUTCOME, "schedule")
STAGES = ("stage_1", "stage_2", "stage_3")
FIGURE_FIELDS = (*FIELDS, *(f"paper_{stage}" for stage in STAGES), *STAGES)
FIGURE = "figure_4"
NAMED = {**{f"table_{number}": table for number, table in TABLES.items()}, FIGURE: FIGURE4}
Row = dict[str, str]


def file_of(folder: Path, name: str) -> Path:
    """The lines of one of `NAMED`."""
    return folder / name / "results.csv"


def number_of(name: str) -> str:
    """The number of the table of that name."""
    return name.removeprefix("table_")


def read_results(folder: Path) -> dict[str, list[Row]]:
    """Lines of each table by its name; those that there are."""
    return {name: rows for name in NAMED if (rows := read_csv(file_of(folder, name)))}


def row_of(name: str, cell: Cell, folder: Path, run: Run) -> dict[str, Any]:
    """A line of the results for a finished run in ``folder``: the paper's number, ours, and how it came about."""
    return {
        "table": number_of(name), "row": cell.row, "column": cell.column, "paper_error": cell.paper,
        "paper_parameters_m": cell.paper_parameters, "schedule": schedule_of(run), **outcome_of(folder, run),
    }  # fmt: skip


def of_cell(rows: Sequence[Row], cell: Cell) -> list[Row]:
    """The lines of one network, one a seed."""
    return [row for row in rows if (row["row"], row["column"]) == (cell.row, cell.column)]


def errors_of(rows: Sequence[Row], cell: Cell) -> dict[str, float]:
    """A network's errors in percent by seed."""
    return errors_by_seed(of_cell(rows, cell))


def responses_of(rows: Sequence[Row], cell: Cell, stage: str) -> dict[str, float]:
    """A network's response at one of `STAGES`, by seed."""
    return {row["seed"]: float(row[stage]) for row in of_cell(rows, cell)}
