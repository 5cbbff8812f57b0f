"""The report: what an order is worth, and how the tables look."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from paper_rows import line
from scipy.stats import t as student_t

from benchmarks.paper import report, tables
from benchmarks.paper.statistics import paired_difference

errors = st.lists(st.floats(0, 100), min_size=2, max_size=8)


@given(better=errors, worse=errors)
def test_an_order_is_held_or_against_the_paper_only_if_the_interval_says_so(better, worse):
    first, second = ({str(seed): error for seed, error in enumerate(values)} for values in (better, worse))
    found, turned = paired_difference(first, second), paired_difference(second, first)
    count = min(len(better), len(worse))
    assert found.pairs == count and found.mean == -turned.mean and found.margin == turned.margin
    if found.margin:
        low, high = student_t.interval(0.95, count - 1, found.mean, found.margin / student_t.ppf(0.975, count - 1))
        assert found.verdict() == ("held" if low > 0 else "against the paper" if high < 0 else "open")
    opposite = {"held": "against the paper", "against the paper": "held"}
    assert turned.verdict() == opposite.get(found.verdict(), "open")


def test_one_seed_decides_nothing_and_seeds_are_paired():
    assert paired_difference({"0": 1.0}, {"0": 99.0}).verdict() == "open"
    assert paired_difference({"0": 1.0}, {"1": 99.0}) is None
    found = paired_difference({"0": 5.0, "1": 9.0, "2": 7.0}, {"2": 8.0, "1": 10.0, "0": 6.1, "3": 99.0})
    assert found.pairs == 3 and found.mean == pytest.approx(3.1 / 3) and found.verdict() == "held"
    assert str(found) == "+1.03 ± 0.14 (3 seeds)"  # 4.303 standard errors of three differences


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
