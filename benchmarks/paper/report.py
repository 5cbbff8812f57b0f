"""The paper's CIFAR tables beside ours: Markdown and plots of what `benchmarks.paper` measured.

    python -m benchmarks.paper.report [--results-dir DIR]

Reads ``table_N/results.csv`` and ``figure_4/results.csv``, draws a ``plot.png`` beside each, prints the tables and, for
the results of this repository, writes them to the pages. An order of the paper is held, or what was measured is against
the paper, only if the 95% interval of the difference, paired by seed, leaves zero out; else it is open.
"""

import argparse
import json
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from benchmarks.cifar.run import Run
from benchmarks.common.files import write_figure
from benchmarks.common.pages import write_block
from benchmarks.common.statistics import mean_and_spread, paired_difference
from benchmarks.common.tables import markdown_table
from benchmarks.paper.results import FIGURE, RECORDS, STAGES, file_of, read_results
from benchmarks.paper.tables import FIGURE4, TABLES, Cell, Table

COMMAND = "python -m benchmarks.paper.report"
VERDICTS = {1: "held", 0: "open", -1: "against the paper"}
NOTHING = "No table has been run yet.\n"
Row = dict[str, str]


def of_cell(rows: Sequence[Row], cell: Cell) -> list[Row]:
    """The lines of one network, one a seed."""
    return [row for row in rows if (row["row"], row["column"]) == (cell.row, cell.column)]


def errors_of(rows: Sequence[Row], cell: Cell) -> dict[str, float]:
    """A network's errors in percent by seed."""
    return {row["seed"]: float(row["error"]) for row in of_cell(rows, cell)}


def orderings(table: Table, rows: Sequence[Row]) -> list[str]:
    """For each two neighbours in the paper's order of a group: their difference there and here, and the verdict."""
    along: Callable[[Cell], str] = (lambda cell: cell.row) if table.compare == "column" else (lambda cell: cell.column)
    name: Callable[[Cell], str] = (lambda cell: cell.column) if table.compare == "column" else (lambda cell: cell.row)
    groups: dict[str, list[Cell]] = {}
    for cell in table.cells:
        if cell.paper is not None and errors_of(rows, cell):
            groups.setdefault(along(cell), []).append(cell)
    lines = []
    for group, cells in groups.items():
        for better, worse in pairwise(sorted(cells, key=lambda cell: cell.paper or 0.0)):
            difference = paired_difference(errors_of(rows, better), errors_of(rows, worse))
            if difference and better.paper is not None and worse.paper is not None:
                lines.append(
                    f"{group}, {name(worse)} minus {name(better)}: {worse.paper - better.paper:+.2f} in the paper, "
                    f"{difference} here: {VERDICTS[difference.sign]}"
                )
    return lines


def command_of(which: str, rows: Sequence[Row]) -> str:
    """The command that makes these lines."""
    arguments = Run.from_dict({"model": "", **json.loads(rows[0]["schedule"])}).arguments()[2:]
    seeds = sorted({row["seed"] for row in rows}, key=int)
    return " ".join(["python -m benchmarks.paper", which, "--data-dir DIR", *arguments, "--seeds", *seeds])


def count(number: int, thing: str) -> str:
    """So many things, in words."""
    return f"{number} {thing}{'' if number == 1 else 's'}"


def caption(which: str, rows: Sequence[Row]) -> str:
    """Schedule, seeds and hardware of a file's lines, and the command."""
    first = rows[0]
    seeds = sorted({row["seed"] for row in rows}, key=int)
    where = sorted({row["gpu"] or f"{row['cpu']}, {count(int(row['threads']), 'thread')}" for row in rows})
    return (
        f"{count(int(first['epochs']), 'epoch')} over {int(first['training_images']):,} training images, "
        f"{count(len(seeds), 'seed')} ({', '.join(seeds)}); {'; '.join(where)}. `{command_of(which, rows)}`"
    )


def table_markdown(number: str, rows: Sequence[Row]) -> str:
    """One table: the paper's error beside ours, and what held of the order."""
    table = TABLES[number]
    found = {(cell.row, cell.column): cell for cell in table.cells if errors_of(rows, cell)}
    columns = [name for name in table.columns() if any(key[1] == name for key in found)]
    sizes = any(cell.paper_parameters for cell in table.cells)
    header = ["", *(["parameters, paper", "ours"] if sizes else [])]
    header += [text for name in columns for text in (f"{name}, paper", "ours")]
    title = f"**Table {number}: {table.title}.** Test error, %; {caption(f'--table {number}', rows)}"
    body = []
    for row in table.rows():
        cells = [found.get((row, name)) for name in columns]
        if not any(cell is not None for cell in cells):
            continue
        texts = [row]
        if sizes:
            first = next(cell for cell in cells if cell is not None)
            texts += [f"{first.paper_parameters}M", f"{int(of_cell(rows, first)[0]['parameters']) / 1e6:.2f}M"]
        for cell in cells:
            texts += [f"{cell.paper:.2f}", mean_and_spread([*errors_of(rows, cell).values()])] if cell else ["", ""]
        body.append(texts)
    held = "".join(f"* {line}\n" for line in orderings(table, rows))
    return f"{title}\n\n{markdown_table(header, body)}\n{held}"


def figure_markdown(rows: Sequence[Row]) -> str:
    """Figure 4 as a table: the stages' responses, the paper's and ours, mean over the seeds."""
    body = []
    for cell in FIGURE4.cells:
        errors = [*errors_of(rows, cell).values()]
        if errors:
            paper, ours = (
                " / ".join(f"{v:.2f}" for v in vs) for vs in (cell.paper_stages or (), responses_of(rows, cell))
            )
            body.append((cell.column, paper, ours, mean_and_spread(errors)))
    title = f"**Figure 4: {FIGURE4.title}.** {caption('--figure 4', rows)}"
    return f"{title}\n\n" + markdown_table(("", "stage 1, 2, 3: paper", "ours", "error, %"), body)


def responses_of(rows: Sequence[Row], cell: Cell) -> list[float]:
    """Our mean responses of a network's stages."""
    return [mean(float(row[stage]) for row in of_cell(rows, cell)) for stage in STAGES]


def number_of(name: str) -> str:
    """The number of the table of that name."""
    return name.removeprefix("table_")


def as_markdown(results: dict[str, list[Row]]) -> str:
    """All tables that there are, by `read_results`."""
    parts = [
        figure_markdown(rows) if name == FIGURE else table_markdown(number_of(name), rows)
        for name, rows in results.items()
    ]
    return "\n".join(parts) or NOTHING


def block() -> str:
    """The tables of this repository's results."""
    return as_markdown(read_results(RECORDS))


def plot_table(number: str, rows: Sequence[Row], path: Path) -> None:
    """Bars of the paper's errors and ours."""
    cells = [cell for cell in TABLES[number].cells if errors_of(rows, cell)]
    labels = [f"{cell.row}\n{cell.column}" for cell in cells]
    errors = [[*errors_of(rows, cell).values()] for cell in cells]
    spreads = [stdev(values) if len(values) > 1 else 0.0 for values in errors]
    figure, axes = _figure(len(cells))
    for shift, name, heights, bar in (
        (-0.2, "paper", [cell.paper for cell in cells], None),
        (0.2, "ours, with the standard deviation over seeds", [mean(values) for values in errors], spreads),
    ):
        bars = axes.bar([i + shift for i in range(len(cells))], heights, yerr=bar, width=0.4, label=name, capsize=3)
        axes.bar_label(bars, fmt="%.2f", fontsize=7)
    axes.set_xticks(range(len(cells)), labels, fontsize=7)
    axes.set(
        ylabel="test error, %",
        title=f"Table {number}: {TABLES[number].title}, {count(int(rows[0]['epochs']), 'epoch')}",
    )
    axes.legend()
    write_figure(path, figure)


def plot_figure(rows: Sequence[Row], path: Path) -> None:
    """Responses over the stages: the paper's dashed, ours solid."""
    figure, axes = _figure(3)
    for i, cell in enumerate(cell for cell in FIGURE4.cells if of_cell(rows, cell)):
        axes.plot((1, 2, 3), responses_of(rows, cell), f"C{i}o-", label=cell.column)
        axes.plot((1, 2, 3), cell.paper_stages, f"C{i}x--", label=f"{cell.column}, paper")
    axes.set_xticks((1, 2, 3))
    axes.set(xlabel="stage", ylabel="mean |response|, relative", title="Figure 4")
    axes.legend()
    write_figure(path, figure)


def _figure(groups: int) -> Any:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(max(5.0, 1.1 * groups), 3.6), layout="constrained")
    return figure, figure.add_subplot()


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        COMMAND, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )  # fmt: skip
    parser.add_argument("--results-dir", type=Path, default=RECORDS, help="default: benchmarks/results/paper")
    args = parser.parse_args(argv)
    if not args.results_dir.is_dir():
        parser.error(f"--results-dir {args.results_dir} is no folder")
    results = read_results(args.results_dir)
    for name, rows in results.items():
        path = file_of(args.results_dir, name).with_name("plot.png")
        if name == FIGURE:
            plot_figure(rows, path)
        else:
            plot_table(number_of(name), rows, path)
    if args.results_dir.resolve() == RECORDS:
        write_block(COMMAND, block())
    print(as_markdown(results), end="")


if __name__ == "__main__":
    main()
