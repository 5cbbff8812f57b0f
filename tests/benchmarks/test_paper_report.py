"""The report: what an order is worth, and how the tables look."""

import json
from dataclasses import replace

import pytest
from paper_rows import line

from benchmarks.cifar.many import folder_of
from benchmarks.cifar.recipe import RECIPES
from benchmarks.cifar.run import Run
from benchmarks.paper import plots, report, tables


@pytest.fixture
def noise():
    return next(cell for cell in tables.TABLES["5"].cells if cell.row == "noise 30%")


def keep_log(records, cell, seed, errors):
    recipe = replace(RECIPES["paper"], epochs=2)
    run = Run(cell.model, recipe, dict(cell.model_kwargs), label_noise=cell.label_noise, seed=seed)
    folder = folder_of(run, records / "runs")
    folder.mkdir(parents=True)
    log = [{"epoch": epoch} | ({"error": errors[epoch]} if epoch in errors else {}) for epoch in range(1, 5)]
    (folder / "log.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in log))


def test_errors_over_the_epochs(tmp_path, noise):
    rows = [line("5", noise, 20.0, 3)]
    plots.plot_epochs("5", rows, tmp_path, tmp_path / "epochs.png")
    assert not (tmp_path / "epochs.png").exists()  # nothing was measured before the end
    keep_log(tmp_path, noise, 3, {2: 30.0, 4: 20.0})
    assert plots.measured(noise, rows[0], tmp_path) == {2: 30.0, 4: 20.0}
    plots.plot_epochs("5", rows, tmp_path, tmp_path / "epochs.png")
    assert (tmp_path / "epochs.png").read_bytes()[1:4] == b"PNG"


def test_seeds_measured_at_different_epochs(tmp_path, noise, monkeypatch):
    keep_log(tmp_path, noise, 0, {1: 50.0, 2: 30.0, 3: 25.0, 4: 20.0})
    keep_log(tmp_path, noise, 1, {2: 32.0, 4: 22.0})
    figures = []
    monkeypatch.setattr(plots, "write_figure", lambda path, figure: figures.append(figure))
    plots.plot_epochs("5", [line("5", noise, 20.0, 0), line("5", noise, 22.0, 1)], tmp_path, tmp_path)
    (curve,) = figures[0].axes[0].containers
    assert curve.lines[0].get_xydata().tolist() == [[2, 31.0], [4, 21.0]]


def test_seeds_are_averaged_and_missing_cells_left_out():
    cells = tables.TABLES["3"].cells
    rows = [line("3", cells[0], 8.0, 0), line("3", cells[0], 9.0, 1), line("3", cells[1], 11.0, 0)]
    text = report.table_markdown("3", rows)
    assert "| Attention-56 | 5.52 | 8.50 ± 0.71 | 5.89 | 11.00 |" in text
    assert "1 to 2 seeds (0, 1)" in text and "2 epochs over 50,000 training images" in text
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
