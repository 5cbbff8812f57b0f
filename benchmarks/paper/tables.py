"""The paper's CIFAR tables as data: which network stands in which cell, and the published number (PAPER.md, section 4).

The ResNet-164 of Table 5, Table 6 and Figure 4 is the bare trunk of Attention-164, ``resattn164_cifar`` with
``mask_type="none"``: 18 pre-activation bottleneck units a stage (a first one, four modules of four, a closing one),
which is He et al.'s pre-activation ResNet-164, 1.7M parameters.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

RESNET164 = ("resattn164_cifar", {"mask_type": "none"})


@dataclass(frozen=True)
class Cell:
    """One network of a table: its row and column there, what it is here, and what the paper says of it.

    Attributes:
        row: Its row.
        column: Its column.
        model: timm's name of it.
        paper: The paper's error in percent.
        model_kwargs: Its arguments.
        label_noise: Share of wrong labels.
        dataset: ``"cifar10"`` or ``"cifar100"``.
        paper_parameters: The paper's number of parameters, in millions.
        paper_stages: Figure 4's mean absolute responses of the three stages relative to the first one's.
    """

    row: str
    column: str
    model: str
    paper: float
    model_kwargs: Mapping[str, Any] = field(default_factory=dict)
    label_noise: float = 0.0
    dataset: str = "cifar10"
    paper_parameters: float | None = None
    paper_stages: tuple[float, float, float] | None = None


@dataclass(frozen=True)
class Table:
    """A table: its cells, and the axis along which the paper compares them.

    Attributes:
        title: What it shows, with the network.
        cells: Its cells in the paper's order.
        compare: ``"column"``: the cells of a row are ordered by their error; ``"row"``: those of a column.
    """

    title: str
    cells: tuple[Cell, ...]
    compare: str

    def rows(self) -> tuple[str, ...]:
        """Names of the rows, in order."""
        return tuple(dict.fromkeys(cell.row for cell in self.cells))

    def columns(self) -> tuple[str, ...]:
        """Names of the columns, in order."""
        return tuple(dict.fromkeys(cell.column for cell in self.cells))


def _depths() -> tuple[Cell, ...]:
    """Cells of Table 3."""
    errors = {56: (5.52, 5.89), 92: (4.99, 5.35), 128: (4.44, 5.57), 164: (4.31, 7.18)}
    return tuple(
        cell
        for depth, (residual, naive) in errors.items()
        for cell in (
            Cell(f"Attention-{depth}", "ARL", f"resattn{depth}_cifar", residual),
            Cell(f"Attention-{depth}", "NAL", f"resattn{depth}_cifar", naive, {"attn_residual": False}),
        )
    )


def _noise() -> tuple[Cell, ...]:
    """Cells of Table 5, and those without noise, of Table 6."""
    errors = {0: (5.46, 4.99), 10: (5.93, 5.15), 30: (6.61, 5.79), 50: (8.35, 7.27), 70: (17.21, 15.75)}
    resnet, no_mask = RESNET164
    return tuple(
        cell
        for percent, (bare, attention) in errors.items()
        for cell in (
            Cell(f"noise {percent}%", "ResNet-164", resnet, bare, no_mask, label_noise=percent / 100),
            Cell(f"noise {percent}%", "Attention-92", "resattn92_cifar", attention, label_noise=percent / 100),
        )
    )


def _sizes() -> tuple[Cell, ...]:
    """Cells of Table 6, of the networks that this package holds."""
    rows = {
        "ResNet-164": (*RESNET164, 1.7, 5.46, 24.33),
        "Attention-92": ("resattn92_cifar", {}, 1.9, 4.99, 21.71),
        "Attention-236": ("resattn236_cifar", {}, 5.1, 4.14, 21.16),
        "Attention-452": ("resattn452_cifar", {}, 8.6, 3.90, 20.45),
    }
    return tuple(
        Cell(name, column, model, error, kwargs, dataset=dataset, paper_parameters=parameters)
        for name, (model, kwargs, parameters, *errors) in rows.items()
        for (column, dataset), error in zip(
            (("CIFAR-10", "cifar10"), ("CIFAR-100", "cifar100")), errors, strict=True
        )
    )  # fmt: skip


TABLES = {
    "1": Table(
        "mask activation, Attention-56",
        (
            Cell("Attention-56", "mixed", "resattn56_cifar", 5.52),
            Cell("Attention-56", "channel", "resattn56_cifar", 6.24, {"attn_act": "channel"}),
            Cell("Attention-56", "spatial", "resattn56_cifar", 6.33, {"attn_act": "spatial"}),
        ),
        compare="column",
    ),
    "3": Table("attention residual learning (ARL) against naive (NAL)", _depths(), compare="column"),
    "4": Table(
        "mask structure, Attention-56",
        (
            Cell("Attention-56", "local convolutions", "resattn56_cifar", 6.48, {"mask_type": "local_conv"}),
            Cell("Attention-56", "encoder-decoder", "resattn56_cifar", 5.52),
        ),
        compare="column",
    ),
    "5": Table("label noise", _noise(), compare="column"),
    "6": Table("size", _sizes(), compare="row"),
}

FIGURE4 = Table(  # with the errors of Tables 3 and 6
    "mean absolute response of each stage's output relative to the first stage's, Attention-164",
    (
        Cell("Attention-164", "ARL", "resattn164_cifar", 4.31, paper_stages=(1.0, 0.53, 0.30)),
        Cell(
            "Attention-164", "NAL", "resattn164_cifar", 7.18, {"attn_residual": False}, paper_stages=(1.0, 0.02, 0.01)
        ),
        Cell("Attention-164", "ResNet-164", RESNET164[0], 5.46, RESNET164[1], paper_stages=(1.0, 0.57, 0.31)),
    ),
    compare="column",
)
