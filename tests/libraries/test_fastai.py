"""fastai's ``vision_learner`` fine-tunes a network by its name."""

import numpy as np
import pytest
import torch
from PIL import Image

import timm_resattn  # noqa: F401  registers the networks

vision = pytest.importorskip("fastai.vision.all")


@pytest.fixture(name="loaders")
def _loaders(tmp_path):
    """Two classes, red and green, at odd sizes."""
    rng = np.random.default_rng(0)
    for channel, name in enumerate(("red", "green")):
        (tmp_path / name).mkdir()
        for i in range(8):
            pixels = rng.integers(0, 80, (41, 37, 3), dtype=np.uint8)
            pixels[..., channel] += 150
            Image.fromarray(pixels).save(tmp_path / name / f"{i}.png")
    return vision.ImageDataLoaders.from_folder(
        tmp_path, valid_pct=0.25, seed=0, bs=4, num_workers=0, item_tfms=vision.Resize((35, 33))
    )


def test_fine_tuning(loaders):
    learner = vision.vision_learner(loaders, "resattn56_cifar", metrics=vision.accuracy)
    frozen = [p for group in learner.opt.param_groups for p in group["params"]]
    assert frozen
    with learner.no_bar(), learner.no_logging():
        learner.fine_tune(1, freeze_epochs=1)
    loss, accuracy = learner.validate()
    assert np.isfinite(loss) and 0 <= accuracy <= 1
    label, _, probabilities = learner.predict(loaders.valid_ds.items[0])
    assert label in ("red", "green") and torch.isclose(probabilities.sum(), torch.tensor(1.0))
