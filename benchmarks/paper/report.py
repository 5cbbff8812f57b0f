"""The paper's CIFAR tables beside ours: Markdown and plots of what `benchmarks.paper` measured.

    python -m benchmarks.paper.report [--results-dir DIR]

Reads ``table_N/results.csv`` and ``figure_4/results.csv``, draws a ``plot.png`` beside each, and ``epochs.png`` of runs
with ``--eval-every``, prints the tables and, for the results of this repository, writes them and
`benchmarks.paper.comparisons` to the pages.
"""

import argparse
import shlex
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from benchmarks.cifar.results import command_of, machines_of, seeds_of
from benchmarks.common.pages import write_block
from benchmarks.common.statistics import mean_and_spread
from benchmarks.common.tables import counted, markdown_table
from benchmarks.paper import comparisons
from benchmarks.paper.comparisons import Comparison
from benchmarks.paper.plots import plot_epochs, plot_figure, plot_table
from benchmarks.paper.results import (
    FIGURE,
    RECORDS,
    STAGES,
    Row,
    errors_of,
    file_of,
    number_of,
    of_cell,
    read_results,
    responses_of,
)
from benchmarks.paper.tables import FIGURE4, TABLES

COMMAND = "python -m benchmarks.paper.report"
NOTHING = "No table has been run yet.\n"


def caption(which: str, rows: Sequence[Row]) -> str:
    """Schedule, seeds and hardware of a file's lines, and the command."""
    first = rows[0]
    seeds = seeds_of(rows)
    fewest = min(Counter((row["row"], row["column"]) for row in rows).values())
    count = counted(len(seeds), "seed") if fewest == len(seeds) else f"{fewest} to {len(seeds)} seeds"
    command = command_of(f"python -m benchmarks.paper {which}", rows)
    return (
        f"{counted(int(first['epochs']), 'epoch')} over {int(first['training_images']):,} training images, "
        f"{count} ({', '.join(seeds)}); {machines_of(rows)}. `{command}`"
    )


def table_markdown(number: str, rows: Sequence[Row]) -> str:
    """One table: the paper's error beside ours, and what its comparisons say."""
    table = TABLES[number]
    found = {(cell.row, cell.column): cell for cell in table.cells if errors_of(rows, cell)}
    columns = [name for name in table.columns() if any(key[1] == name for key in found)]
    sizes = any(cell.paper_parameters for cell in table.cells)
    header = ["", *(["parameters, paper", "ours"] if sizes else [])]
    header += [text for name in columns for text in (f"{name}, paper", "ours")]
    shown = [name for name in table.rows() if any(key[0] == name for key in found)]
    which = f"--table {number}" + (f" --rows {shlex.join(shown)}" if shown != list(table.rows()) else "")
    title = f"**Table {number}: {table.title}.** Test error, %; {caption(which, rows)}"
    body = []
    for row in shown:
        cells = [found.get((row, name)) for name in columns]
        texts = [row]
        if sizes:
            first = next(cell for cell in cells if cell is not None)
            texts += [f"{first.paper_parameters}M", f"{int(of_cell(rows, first)[0]['parameters']) / 1e6:.2f}M"]
        for cell in cells:
            texts += [f"{cell.paper:.2f}", mean_and_spread([*errors_of(rows, cell).values()])] if cell else ["", ""]
        body.append(texts)
    return _section(title, header, body, comparisons.comparisons(f"table_{number}", rows))


def figure_markdown(rows: Sequence[Row]) -> str:
    """Figure 4 as a table: the stages' responses, the paper's and ours, and how far the last one's differ."""
    columns = (*(stage.replace("_", " ") for stage in STAGES), "test error, %")
    header = ["", *(text for name in columns for text in (f"{name}, paper", "ours"))]
    body = []
    for cell in FIGURE4.cells:
        errors = [*errors_of(rows, cell).values()]
        if errors:
            texts = [cell.column]
            for stage, paper in zip(STAGES, cell.paper_stages or (), strict=True):
                texts += [f"{paper:.2f}", mean_and_spread([*responses_of(rows, cell, stage).values()])]
            body.append((*texts, f"{cell.paper:.2f}", mean_and_spread(errors)))
    title = f"**Figure 4: {FIGURE4.title}.** {caption('--figure 4', rows)}"
    return _section(title, header, body, comparisons.comparisons(FIGURE, rows) + comparisons.attenuation(rows))


def _section(title: str, header: Sequence[str], body: Sequence[Sequence[str]], found: Sequence[Comparison]) -> str:
    """A table below its title, and what its comparisons say."""
    lines = "".join(f"* {comparison}\n" for comparison in found)
    return f"{title}\n\n{markdown_table(header, body)}\n{lines}"


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
            plot_epochs(number_of(name), rows, args.results_dir, path.with_name("epochs.png"))
    if args.results_dir.resolve() == RECORDS:
        write_block(COMMAND, block())
        write_block(comparisons.COMMAND, comparisons.block())
    print(as_markdown(results), end="")


if __name__ == "__main__":
    main()
