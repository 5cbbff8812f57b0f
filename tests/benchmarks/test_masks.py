"""The scores of maps, against networks of which one knows where they look."""

import json

import numpy as np
import pytest
import torch
from helpers import live_in, noise, tiny
from torch import nn

from benchmarks.masks import __main__ as command
from benchmarks.masks.maps import BASELINES, OF_CLASS, OF_MASK, baselines, maps, reference_means
from benchmarks.masks.scores import deletion_and_insertion, mosaics, share_in_cell


class LooksAtTheLeft(nn.Module):
    """Class 1 by the brightness of the left half, against class 0."""

    def forward(self, x):
        left = 8 * x[..., : x.shape[-1] // 2].square().mean((1, 2, 3))
        return torch.stack([torch.ones_like(left), left], 1)


def test_a_right_map_ranks_better_than_a_wrong_one():
    images = torch.randn(4, 3, 16, 16)
    classes = torch.ones(4, dtype=torch.long)
    left = torch.zeros(4, 8, 8)
    left[..., :4] = 1
    deleted, inserted = deletion_and_insertion(LooksAtTheLeft(), images, classes, left)
    deleted_wrong, inserted_wrong = deletion_and_insertion(LooksAtTheLeft(), images, classes, -left)
    assert (deleted < deleted_wrong).all() and (inserted > inserted_wrong).all()


def test_share_in_a_cell():
    heat = torch.zeros(1, 8, 8)
    heat[:, :4, 4:] = 3
    heat[:, 4:, :4] = -5  # only what is positive counts
    assert share_in_cell(heat, 1, torch.Size((8, 8))).item() == 1
    assert share_in_cell(heat, 2, torch.Size((8, 8))).item() == 0
    for flat in (torch.ones(1, 4, 4), -torch.ones(1, 4, 4)):
        assert share_in_cell(flat, 3, torch.Size((32, 32))).item() == pytest.approx(0.25)


def test_mosaics_are_of_four_classes():
    images, classes = torch.arange(12.0).view(12, 1, 1, 1).expand(12, 3, 4, 4), torch.arange(12) % 5
    pictures, cells = mosaics(images, classes, 7, seed=0)
    assert pictures.shape == (7, 3, 8, 8) and all(len(row.unique()) == 4 for row in cells)
    values = pictures[:, 0, ::4, ::4].flatten(1).long()
    assert torch.equal(values % 5, cells)
    with pytest.raises(ValueError, match="four classes; there are 3"):
        mosaics(images, classes % 3, 1, seed=0)


def test_every_candidate_has_a_map_of_every_mask():
    model = live_in(tiny()).requires_grad_(False)
    x, classes = noise(2, 3, 16, 16), torch.tensor([1, 4])
    reference = reference_means(model, noise(5, 3, 16, 16))
    found = [(name, module) for name, module, _ in maps(model, x, classes, reference)]
    assert len(set(found)) == len(found) == 2 * (len(OF_MASK) + len(OF_CLASS))
    for name, _, heat in (*maps(model, x, classes, reference), *baselines(model, x, classes, 0)):
        assert heat.shape[0] == 2 and heat.ndim == 3 and heat.isfinite().all(), name
    assert {name for name, _, _ in baselines(model, x, classes, 0)} == set(BASELINES) - set(OF_CLASS)


def test_the_command_writes_a_row_for_each(tmp_path, capsys):
    skimage = pytest.importorskip("skimage.data")
    pytest.importorskip("tqdm")
    crops = [image[:64, :64][::2, ::2] for image in (skimage.cat(), skimage.rocket(), skimage.coffee())]
    rng = np.random.default_rng(0)
    crops += [rng.integers(0, 256, (32, 32, 3), np.uint8) for _ in range(5)]
    for split in ("train", "test"):
        np.savez(tmp_path / f"{split}.npz", images=np.stack(crops), labels=np.arange(8))
    out = tmp_path / "record.json"
    options = ["--data-dir", str(tmp_path), "--models", "resattn56_cifar", "--images", "8", "--mosaics", "2"]
    with pytest.MonkeyPatch.context() as patch:  # few pictures: any prediction is sure enough, any classes are four
        patch.setattr(command, "SURE", 0.0)
        patch.setattr(command, "mosaics", lambda images, classes, count, seed: mosaics(
            images, torch.arange(len(images)), count, seed
        ))  # fmt: skip
        assert command.main([*options, "--reference", "8", "--out", str(out)]) == 0
    record = json.loads(out.read_text())
    assert len(record["rows"]) == 3 + 3 * (len(OF_MASK) + len(OF_CLASS))
    assert all(0 <= row["deletion"] <= 1 and 0 <= row["share"] <= 1 for row in record["rows"])
    assert "| `resattn56_cifar` | *random* |" in capsys.readouterr().out
