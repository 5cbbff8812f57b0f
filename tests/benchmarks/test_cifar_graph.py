"""An update as a CUDA graph does what it does without one."""

import pytest
import torch
from cifar_runs import MODEL, STEPS

from benchmarks.cifar import run as runs
from benchmarks.cifar.graph import WARM_UP, GraphedUpdate
from benchmarks.cifar.recipe import Recipe
from benchmarks.cifar.run import Run
from benchmarks.cifar.trainer import Trainer

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]
TINY = dict(depths=(1, 0, 0), widths=(8, 8, 16), mask_pools=(1, 1, 1))


@pytest.mark.parametrize("prune", [0.0, 0.3])
@pytest.mark.parametrize("crop", [0, 24])
def test_graphed_training_is_eager_training(data, prune, crop):
    """Two sizes of crops: two graphs; the learning rate falls from update to update."""
    recipe = Recipe(batch_size=8, epochs=4, warmup_epochs=0.5, prune=prune, crop=crop, crop_epochs=0.5, cutout=4)
    device = torch.device("cuda")
    run = Run(MODEL, recipe, TINY, amp=False)
    graphed, eager = (Trainer(run, runs.load_data(run, data, device), device) for _ in range(2))
    eager.update = eager._update
    assert isinstance(graphed.update, GraphedUpdate) and graphed.steps_per_epoch > WARM_UP
    for _ in range(recipe.epochs):
        rows = [training.epoch(lambda: False) for training in (graphed, eager)]
        assert graphed.update.graph is not None
        assert rows[0]["loss"] == pytest.approx(rows[1]["loss"], rel=1e-2)
        assert rows[0]["lr"] == rows[1]["lr"]
    for (name, p), q in zip(graphed.model.named_parameters(), eager.model.parameters(), strict=True):
        assert (p - q).norm() < 0.05 * q.norm() + 1e-6, name


def test_a_graphed_run_goes_on_from_its_checkpoint(data):
    device = torch.device("cuda")
    run = Run(MODEL, Recipe(batch_size=16, epochs=2, warmup_epochs=0.5), TINY)
    whole, part, rest = (Trainer(run, runs.load_data(run, data, device), device) for _ in range(3))
    for _ in range(2):
        whole.epoch(lambda: False)
    part.epoch(lambda: False)
    rest.load_state_dict(part.state_dict())
    rest.epoch(lambda: False)
    assert rest.step == whole.step == 2 * STEPS
    for (name, p), q in zip(whole.model.named_parameters(), rest.model.parameters(), strict=True):
        assert (p - q).norm() < 0.05 * q.norm() + 1e-6, name
