"""What the paper says of two networks beside each other, and whether it holds here.

    python -m benchmarks.paper.comparisons

prints the comparisons that more than one seed was run for, and writes them to the pages. An order of the paper is held,
or what was measured is against the paper, only if the 95% interval of the difference, paired by seed, leaves zero out;
else it is open.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from benchmarks.common.pages import renew
from benchmarks.common.statistics import Difference, paired_difference
from benchmarks.common.tables import counted, markdown_table
from benchmarks.paper.results import NAMED, RECORDS, STAGES, Row, errors_of, read_results, responses_of
from benchmarks.paper.tables import FIGURE4, TABLES, Cell, Table

COMMAND = "python -m benchmarks.paper.comparisons"
VERDICTS = {1: "held", 0: "open", -1: "against the paper"}
NOTHING = "No two networks have been compared with several seeds yet.\n"


@dataclass(frozen=True)
class Comparison:
    """By how much more error one network makes than another, or how much more masks help or a response is kept.

    Attributes:
        text: Which networks.
        paper: The paper's difference, above zero; of errors in percentage points.
        here: Ours.
    """

    text: str
    paper: float
    here: Difference

    @property
    def verdict(self) -> str:
        """Whether the paper's sign holds."""
        return VERDICTS[self.here.sign]

    def __str__(self) -> str:
        return f"{self.text}: {self.paper:+.2f} in the paper, {self.here} here: {self.verdict}"


def comparisons(name: str, rows: Sequence[Row]) -> list[Comparison]:
    """All that the lines of one of `NAMED` say of errors: each beside the best of its group, and Table 5's gap."""
    return orders(NAMED[name], rows) + (growth(rows) if name == "table_5" else [])


def orders(table: Table, rows: Sequence[Row]) -> list[Comparison]:
    """Of each network beside the one of its group that is best in the paper."""
    group, name = ("row", "column") if table.compare == "column" else ("column", "row")
    groups: dict[str, list[Cell]] = {}
    for cell in table.cells:
        if errors_of(rows, cell):
            groups.setdefault(getattr(cell, group), []).append(cell)
    found = []
    for key, cells in groups.items():
        better, *others = sorted(cells, key=lambda cell: cell.paper)
        for worse in others:
            difference = paired_difference(errors_of(rows, better), errors_of(rows, worse))
            if difference:
                text = f"{key}, {getattr(worse, name)} minus {getattr(better, name)}"
                found.append(Comparison(text, worse.paper - better.paper, difference))
    return found


def growth(rows: Sequence[Row]) -> list[Comparison]:
    """For each share of wrong labels of Table 5: by how much more masks help there than with none."""
    by_noise: dict[float, list[Cell]] = {}
    for cell in TABLES["5"].cells:
        by_noise.setdefault(cell.label_noise, []).append(cell)

    def gap(cells: list[Cell]) -> tuple[float, dict[str, float]]:
        bare, attention = (errors_of(rows, cell) for cell in cells)
        paper = cells[0].paper - cells[1].paper
        return paper, {seed: bare[seed] - attention[seed] for seed in bare.keys() & attention.keys()}

    paper_clean, clean = gap(by_noise.pop(0.0))
    found = []
    for cells in by_noise.values():
        paper, noisy = gap(cells)
        difference = paired_difference(clean, noisy)
        if difference:
            text = f"{cells[0].row}, the gap's growth from noise 0%"
            found.append(Comparison(text, paper - paper_clean, difference))
    return found


def attenuation(rows: Sequence[Row]) -> list[Comparison]:
    """Of Figure 4: by how much more of its response each network keeps at the last stage than naive attention."""
    networks = {cell.column: (cell.paper_stages[-1], responses_of(rows, cell, STAGES[-1])) for cell in FIGURE4.cells}
    paper_naive, naive = networks.pop("NAL")
    found = []
    for name, (paper, ours) in networks.items():
        difference = paired_difference(naive, ours)
        if difference:
            found.append(Comparison(f"response of stage 3, {name} minus NAL", paper - paper_naive, difference))
    return found


def as_markdown(results: Mapping[str, Sequence[Row]]) -> str:
    """The comparisons of errors that have an interval, of all that there is, by `read_results`."""
    body = []
    for table, rows in results.items():
        for one in comparisons(table, rows):
            if one.here.pairs > 1:
                source = f"{table.replace('_', ' ').capitalize()}, {counted(int(rows[0]['epochs']), 'epoch')}"
                body.append((source, one.text, f"{one.paper:+.2f}", str(one.here), one.verdict))
    header = ("from", "test error of", "the paper", "here, 95% interval", "")
    return markdown_table(header, body, text_columns=2) if body else NOTHING


def block() -> str:
    """The comparisons of this repository's results."""
    return as_markdown(read_results(RECORDS))


def main(argv: list[str] | None = None) -> None:
    renew(COMMAND, __doc__, block, argv)


if __name__ == "__main__":
    main()
