"""The report: what an order is worth, and how the tables look."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.cifar.recipe import RECIPES
from benchmarks.cifar.results import schedule_of
from benchmarks.cifar.run import Run
from benchmarks.paper import report, tables
from benchmarks.paper import results as paper_results


def schedule(epochs=2, images=None):
    return schedule_of(Run("resattn56_cifar", replace(RECIPES["paper"], epochs=epochs), images=images))


def line(number, cell, error, seed=0, text=None, images=10_000):
    row = dict.fromkeys(paper_results.FIELDS, "x") | {
        "table": number, "row": cell.row, "column": cell.column, "seed": seed, "error": error, "parameters": 1_864_000,
        "epochs": 2, "training_images": 50_000, "held_out": f"test, {images} images", "threads": 2, "gpu": "",
        "schedule": text or schedule(),
    }  # fmt: skip
    return {name: str(value) for name, value in row.items()}


@given(better=st.floats(0, 100), worse=st.floats(0, 100), images=st.integers(1, 100_000))
def test_an_order_holds_is_reversed_or_is_open(better, worse, images):
    verdict = report.compare(better, worse, images)
    assert report.compare(worse, better, images) == {"held": "reversed", "reversed": "held"}.get(verdict, "open")
    if verdict != "open":
        assert (better < worse) == (verdict == "held")
        assert report.compare(better, worse, 100 * images) == verdict  # more images tell at least as much


def test_orders_of_a_table():
    local, encoder = tables.TABLES["4"].cells
    for ours, verdict in ((8.0, "held"), (10.1, "open"), (12.0, "reversed")):
        rows = [line("4", local, "10.0"), line("4", encoder, str(ours))]
        (text,) = report.orderings(tables.TABLES["4"], rows)
        expected = f"Attention-56: encoder-decoder below local convolutions in the paper; here {ours:.2f} and 10.00"
        assert text == f"{expected}: {verdict}"


def test_seeds_are_averaged_and_missing_cells_left_out():
    cells = tables.TABLES["3"].cells
    rows = [line("3", cells[0], 8.0, 0), line("3", cells[0], 9.0, 1), line("3", cells[1], 11.0, 0)]
    text = report.table_markdown("3", rows)
    assert "| Attention-56 | 5.52 | 8.50 | 5.89 | 11.00 |" in text
    assert "2 seeds (0, 1)" in text and "2 epochs over 50,000 training images" in text
    assert "Attention-92" not in text


def test_table_6_names_sizes_and_orders_by_column():
    cells = [cell for cell in tables.TABLES["6"].cells if cell.dataset == "cifar10"]
    rows = [line("6", cell, str(error)) for cell, error in zip(cells, (9, 8, 7, 6), strict=True)]
    text = report.table_markdown("6", rows)
    assert (
        "|  | parameters, paper | ours | CIFAR-10, paper | ours |" in text and "| 1.9M | 1.86M | 4.99 | 8.00 |" in text
    )
    assert text.count(": held") == 3 and "CIFAR-100" not in text


def test_a_report_of_nothing(tmp_path, capsys):
    report.main(["--results-dir", str(tmp_path)])
    assert capsys.readouterr().out == report.NOTHING and not list(tmp_path.iterdir())
    with pytest.raises(SystemExit, match="2"):
        report.main(["--results-dir", str(tmp_path / "none")])
