"""The report: what an order is worth, and how the tables look."""

import pytest
from paper_rows import line

from benchmarks.paper import report, tables


def test_orders_of_a_table():
    local, encoder = tables.TABLES["4"].cells
    for ours, verdict in ((8.0, "held"), (10.1, "open"), (12.0, "against the paper")):
        rows = [line("4", local, 10.0, 0), line("4", local, 10.4, 1)]
        rows += [line("4", encoder, ours, 0), line("4", encoder, ours + 0.5, 1)]
        (text,) = report.orderings(tables.TABLES["4"], rows)
        expected = "Attention-56, local convolutions minus encoder-decoder: +0.96 in the paper, "
        assert text == f"{expected}{9.95 - ours:+.2f} ± 0.64 (2 seeds) here: {verdict}"


def test_seeds_are_averaged_and_missing_cells_left_out():
    cells = tables.TABLES["3"].cells
    rows = [line("3", cells[0], 8.0, 0), line("3", cells[0], 9.0, 1), line("3", cells[1], 11.0, 0)]
    text = report.table_markdown("3", rows)
    assert "| Attention-56 | 5.52 | 8.50 ± 0.71 | 5.89 | 11.00 |" in text
    assert "2 seeds (0, 1)" in text and "2 epochs over 50,000 training images" in text
    assert "Attention-92" not in text


def test_table_6_names_sizes_and_orders_by_column():
    cells = [cell for cell in tables.TABLES["6"].cells if cell.dataset == "cifar10"]
    rows = [line("6", cell, str(error)) for cell, error in zip(cells, (9, 8, 7, 6), strict=True)]
    text = report.table_markdown("6", rows)
    assert (
        "|  | parameters, paper | ours | CIFAR-10, paper | ours |" in text and "| 1.9M | 1.86M | 4.99 | 8.00 |" in text
    )
    assert text.count(": open") == 3 and "CIFAR-100" not in text


def test_a_report_of_nothing(tmp_path, capsys):
    report.main(["--results-dir", str(tmp_path)])
    assert capsys.readouterr().out == report.NOTHING and not list(tmp_path.iterdir())
    with pytest.raises(SystemExit, match="2"):
        report.main(["--results-dir", str(tmp_path / "none")])
