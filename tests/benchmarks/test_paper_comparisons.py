"""What the paper says of two networks: its sign here, by the interval."""

import pytest
from paper_rows import line

from benchmarks.paper import report, tables
from benchmarks.paper.comparisons import NOTHING, as_markdown, attenuation, comparisons, growth


@pytest.mark.parametrize(("ours", "verdict"), [(8.0, "held"), (10.1, "open"), (12.0, "against the paper")])
def test_order_of_two_networks(ours, verdict):
    local, encoder = tables.TABLES["4"].cells
    rows = [line("4", local, 10.0, 0), line("4", local, 10.4, 1)]
    rows += [line("4", encoder, ours, 0), line("4", encoder, ours + 0.5, 1)]
    (found,) = comparisons("table_4", rows)
    expected = "Attention-56, local convolutions minus encoder-decoder"
    assert str(found) == f"{expected}: +0.96 in the paper, {9.95 - ours:+.2f} ± 0.64 (2 seeds) here: {verdict}"
    assert f"* {found}\n" in report.table_markdown("4", rows)
    _, _, row = as_markdown({"table_4": rows}).splitlines()
    assert row.endswith(f"| {expected} | +0.96 | {9.95 - ours:+.2f} ± 0.64 (2 seeds) | {verdict} |")


def test_each_is_compared_with_the_papers_best_along_rows_too():
    cells = [cell for cell in tables.TABLES["6"].cells if cell.column == "CIFAR-10"]
    found = comparisons("table_6", [line("6", cell, 10.0 + index, 0) for index, cell in enumerate(cells)])
    assert [one.text for one in found] == [
        f"CIFAR-10, {name} minus Attention-452" for name in ("Attention-236", "Attention-92", "ResNet-164")
    ]
    assert [one.here.mean for one in found] == [-1, -2, -3]
    assert all(one.paper > 0 and one.verdict == "open" for one in found)


def test_growth_of_the_gap_under_label_noise():
    cells = {(cell.row, cell.column): cell for cell in tables.TABLES["5"].cells}
    errors = {
        ("noise 0%", "ResNet-164"): (10.0, 11.0), ("noise 0%", "Attention-92"): (9.0, 9.9),
        ("noise 30%", "ResNet-164"): (20.0, 22.0), ("noise 30%", "Attention-92"): (17.0, 18.8),
    }  # fmt: skip
    rows = [line("5", cells[key], error, seed) for key, both in errors.items() for seed, error in enumerate(both)]
    (found,) = growth(rows)  # gaps: 1 and 1.1 without noise, 3 and 3.2 with it
    text = "noise 30%, the gap's growth from noise 0%: +0.35 in the paper, +2.05 ± 0.64 (2 seeds) here: held"
    assert str(found) == text
    assert text in report.table_markdown("5", rows)
    assert growth([row for row in rows if row["row"] == "noise 30%"]) == []


def test_responses_that_naive_attention_loses():
    cells = {cell.column: cell for cell in tables.FIGURE4.cells}
    stages = {"ARL": (0.5, 0.62), "NAL": (0.2, 0.3), "ResNet-164": (0.26, 0.3)}
    rows = [
        line("figure_4", cells[name], 10.0 + seed, seed) | {"stage_1": "1", "stage_2": "0.75", "stage_3": str(last)}
        for name, both in stages.items()
        for seed, last in enumerate(both)
    ]
    assert [str(one) for one in attenuation(rows)] == [
        "response of stage 3, ARL minus NAL: +0.29 in the paper, +0.31 ± 0.13 (2 seeds) here: held",
        "response of stage 3, ResNet-164 minus NAL: +0.30 in the paper, +0.03 ± 0.38 (2 seeds) here: open",
    ]
    text = report.figure_markdown(rows)
    assert "| stage 3, paper | ours | test error, %, paper | ours |" in text
    assert "| NAL | 1.00 | 1.00 ± 0.00 | 0.02 | 0.75 ± 0.00 | 0.01 | 0.25 ± 0.07 | 7.18 | 10.50 ± 0.71 |" in text
    assert "* Attention-164, NAL minus ARL: +2.87 in the paper, +0.00 ± 0.00 (2 seeds) here: open" in text
    assert "| Figure 4, 2 epochs | Attention-164, NAL minus ARL | +2.87 |" in as_markdown({"figure_4": rows})
    assert all(f"* {one}\n" in text for one in attenuation(rows))
    assert len(attenuation([row for row in rows if row["column"] != "ResNet-164"])) == 1


def test_one_seed_is_no_interval():
    rows = [line("4", cell, 10.0, 0) for cell in tables.TABLES["4"].cells]
    assert len(comparisons("table_4", rows)) == 1
    assert as_markdown({"table_4": rows}) == as_markdown({}) == NOTHING
