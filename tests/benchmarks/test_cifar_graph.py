"""An update as a CUDA graph does what it does without one."""

import pytest
import torch
from cifar_runs import MODEL

from benchmarks.cifar import run as runs
from benchmarks.cifar.graph import WARM_UP
from benchmarks.cifar.recipe import Recipe
from benchmarks.cifar.run import Run
from benchmarks.cifar.trainer import Trainer

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]


@pytest.mark.parametrize("prune", [0.0, 0.3])
@pytest.mark.parametrize("crop", [0, 24])
def test_a_replay_is_an_update(data, prune, crop, monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    recipe = Recipe(batch_size=8, epochs=4, warmup_epochs=0.5, prune=prune, crop=crop, cutout=4)
    device = torch.device("cuda")
    run = Run(MODEL, recipe, dict(depths=(1, 0, 0), widths=(8, 8, 16), mask_pools=(1, 1, 1)), amp=False)
    graphed, eager = (Trainer(run, runs.load_data(run, data, device), device) for _ in range(2))
    assert graphed.steps_per_epoch > WARM_UP
    graphed.epoch(lambda: False)
    assert graphed.update.graph is not None
    for rate in (0.02, 0.001, 0.0):  # what the graph was captured with is none of them
        eager.load_state_dict(graphed.state_dict())
        before = [p.detach().clone() for p in graphed.model.parameters()]
        images, targets = graphed.batch(torch.arange(8, device=device))
        weights = torch.ones(8, device=device) if prune else None
        outcomes = []
        for training, update in ((graphed, graphed.update), (eager, eager._update)):
            for group in training.optimizer.param_groups:
                group["lr"] = rate
            outcomes.append([value.clone() for value in update(images, targets, weights)])
        for mine, expected in zip(*outcomes, strict=True):
            assert torch.allclose(mine, expected, rtol=1e-3)
        steps = [
            torch.cat([(p - old).flatten() for p, old in zip(training.model.parameters(), before, strict=True)])
            for training in (graphed, eager)
        ]
        assert (steps[0].norm() > 0) == (rate > 0)
        assert (steps[0] - steps[1]).norm() <= 0.05 * steps[1].norm(), rate
    for mine, expected in zip(graphed.model.buffers(), eager.model.buffers(), strict=True):
        assert torch.allclose(mine, expected, rtol=1e-3, atol=1e-5)
