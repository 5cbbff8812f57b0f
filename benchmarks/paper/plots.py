"""Plots of the paper's tables beside ours."""

import json
from collections.abc import Sequence
from pathlib import Path
from statistics import mean
from typing import Any

from benchmarks.cifar.many import folder_of
from benchmarks.cifar.run import Run
from benchmarks.common.files import write_figure
from benchmarks.common.statistics import spread
from benchmarks.paper.results import STAGES, Row, errors_of, of_cell, responses_of
from benchmarks.paper.tables import FIGURE4, TABLES, Cell


def plot_table(number: str, rows: Sequence[Row], path: Path) -> None:
    """Bars of the paper's errors and ours."""
    cells = [cell for cell in TABLES[number].cells if errors_of(rows, cell)]
    labels = [f"{cell.row}\n{cell.column}" for cell in cells]
    errors = [[*errors_of(rows, cell).values()] for cell in cells]
    spreads = [spread(values) for values in errors]
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
        title=f"Table {number}; epochs: {rows[0]['epochs']}\n{TABLES[number].title}",
    )
    figure.legend(loc="outside lower center", ncols=2)
    write_figure(path, figure)


def plot_epochs(number: str, rows: Sequence[Row], records: Path, path: Path) -> None:
    """Errors over the epochs, mean and standard deviation over seeds, of the networks measured while they trained.

    Of a network's seeds the epochs count that were measured in all of them.
    """
    curves = {}
    for cell in TABLES[number].cells:
        logs = [measured(cell, row, records) for row in of_cell(rows, cell)]
        if logs and all(len(log) > 1 for log in logs):
            curves[f"{cell.row}, {cell.column}"] = logs
    if not curves:
        return
    figure, axes = _figure(5)
    for name, logs in curves.items():
        epochs = sorted(set.intersection(*map(set, logs)))  # a seed may have been measured more often than another
        errors = [[log[epoch] for log in logs] for epoch in epochs]
        spreads = [spread(values) for values in errors]
        axes.errorbar(epochs, [mean(values) for values in errors], yerr=spreads, label=name, capsize=3)
    axes.set(xlabel="epoch", ylabel="test error, %", title=f"Table {number} over the epochs")
    axes.xaxis.get_major_locator().set_params(integer=True)
    figure.legend(loc="outside lower center", ncols=2)
    write_figure(path, figure)


def measured(cell: Cell, row: Row, records: Path) -> dict[int, float]:
    """A network's errors by epoch, of the log that was kept of its run."""
    own = {name: getattr(cell, name) for name in ("model", "dataset", "label_noise")}
    own |= {"model_kwargs": dict(cell.model_kwargs), "seed": int(row["seed"])}
    log = folder_of(Run.from_dict(json.loads(row["schedule"]) | own), records / "runs") / "log.jsonl"
    lines = [json.loads(line) for line in log.read_text().splitlines()] if log.is_file() else []
    return {line["epoch"]: line["error"] for line in lines if "error" in line}


def plot_figure(rows: Sequence[Row], path: Path) -> None:
    """Responses over the stages: the paper's dashed, ours solid with the standard deviation over seeds."""
    figure, axes = _figure(3)
    for i, cell in enumerate(cell for cell in FIGURE4.cells if of_cell(rows, cell)):
        ours = [[*responses_of(rows, cell, stage).values()] for stage in STAGES]
        means, spreads = [mean(values) for values in ours], [spread(values) for values in ours]
        axes.errorbar((1, 2, 3), means, yerr=spreads, fmt=f"C{i}o-", label=cell.column, capsize=3)
        axes.plot((1, 2, 3), cell.paper_stages, f"C{i}x--", label=f"{cell.column}, paper")
    axes.set_xticks((1, 2, 3))
    axes.set(xlabel="stage", ylabel="mean |response|, relative", title="Figure 4")
    figure.legend(loc="outside lower center", ncols=2)
    write_figure(path, figure)


def _figure(groups: int) -> Any:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(max(5.0, 1.1 * groups), 3.6), layout="constrained")
    return figure, figure.add_subplot()
