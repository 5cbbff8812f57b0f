"""The report: what an order is worth, and how the tables look."""

import json
from dataclasses import replace

import pytest
from paper_rows import line

from benchmarks.cifar.many import folder_of
from benchmarks.cifar.recipe import RECIPES
from benchmarks.cifar.run import Run
from benchmarks.paper import plots, report, tables


def test_errors_over_the_epochs(tmp_path):
    cell = next(cell for cell in tables.TABLES["5"].cells if cell.row == "noise 30%")
    rows = [line("5", cell, 20.0, 3)]
    plots.plot_epochs("5", rows, tmp_path, tmp_path / "epochs.png")
    assert not (tmp_path / "epochs.png").exists()  # nothing was measured before the end
    recipe = replace(RECIPES["paper"], epochs=2)
    run = Run(cell.model, recipe, dict(cell.model_kwargs), label_noise=0.3, seed=3)
    folder = folder_of(run, tmp_path / "runs")
    folder.mkdir(parents=True)
    log = [{"epoch": 1}, {"epoch": 2, "error": 30.0}, {"epoch": 3}, {"epoch": 4, "error": 20.0}]
    (folder / "log.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in log))
    assert plots.measured(cell, rows[0], tmp_path) == {2: 30.0, 4: 20.0}
    plots.plot_epochs("5", rows, tmp_path, tmp_path / "epochs.png")
    assert (tmp_path / "epochs.png").read_bytes()[1:4] == b"PNG"


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
