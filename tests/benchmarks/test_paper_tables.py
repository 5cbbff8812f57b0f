"""The paper's tables as data."""

import pytest
import timm

from benchmarks.cifar import many
from benchmarks.cifar.recipe import RECIPES
from benchmarks.cifar.run import Run
from benchmarks.paper import tables

CELLS = [cell for table in (*tables.TABLES.values(), tables.FIGURE4) for cell in table.cells]


def test_each_cell_is_a_network_of_the_paper_s_size():
    distinct = {(cell.model, *cell.model_kwargs.items()): cell for cell in CELLS}
    assert len(distinct) == 14
    for cell in distinct.values():
        model = timm.create_model(cell.model, device="meta", **cell.model_kwargs)
        if cell.paper_parameters:
            count = sum(p.numel() for p in model.parameters())
            assert count / 1e6 == pytest.approx(cell.paper_parameters, rel=0.04), cell


def test_numbers_of_the_paper():
    found = {
        (number, cell.row, cell.column): cell.paper for number, table in tables.TABLES.items() for cell in table.cells
    }
    assert len(found) == 3 + 8 + 2 + 10 + 8
    assert found["1", "Attention-56", "mixed"] == found["3", "Attention-56", "ARL"] == 5.52
    assert found["3", "Attention-164", "NAL"] == 7.18
    assert found["4", "Attention-56", "local convolutions"] == 6.48
    assert found["5", "noise 70%", "ResNet-164"] == 17.21 and found["5", "noise 10%", "Attention-92"] == 5.15
    for column in ("ResNet-164", "Attention-92"):
        assert found["5", "noise 0%", column] == found["6", column, "CIFAR-10"]
    assert found["6", "Attention-452", "CIFAR-10"] == 3.90 and found["6", "Attention-452", "CIFAR-100"] == 20.45
    noise = [cell.label_noise for cell in tables.TABLES["5"].cells]
    assert noise[::2] == noise[1::2] == [0, 0.1, 0.3, 0.5, 0.7]


def test_tables_share_their_runs(tmp_path):
    def folder(number, column, seed=0):
        cell = next(cell for cell in tables.TABLES[number].cells if cell.column == column)
        run = Run(cell.model, RECIPES["paper"], dict(cell.model_kwargs), label_noise=cell.label_noise, seed=seed)
        return many.folder_of(run, tmp_path)

    assert folder("1", "mixed") == folder("3", "ARL") == folder("4", "encoder-decoder")
    others = {folder("1", "mixed", seed=1), folder("1", "channel"), folder("3", "NAL"), folder("5", "Attention-92")}
    assert len(others | {folder("1", "mixed")}) == 5
