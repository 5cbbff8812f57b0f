"""Training: pruning, smaller crops, dead channels, the error, the clock."""

from dataclasses import replace

import pytest
import torch
from cifar_runs import MODEL, STEPS, needs_wsd
from timm.layers import BatchNormAct2d

from benchmarks.cifar import dead, trainer
from benchmarks.cifar import run as runs
from benchmarks.cifar.recipe import Recipe
from benchmarks.cifar.run import Run


def test_pruned_images_are_the_easy_ones_and_the_rest_stand_for_them(data, tmp_path):
    run = Run(MODEL, Recipe(epochs=2, batch_size=7, warmup_epochs=0, prune=0.4, smoothing=0.0, lr=1e-9, pad=0))
    device = torch.device("cpu")
    pruning = trainer.Trainer(run, runs.load_data(run, data, device), device)
    assert pruning.steps_per_epoch == 6
    given = torch.arange(70.0)
    pruning.losses = given.clone()
    row = pruning.epoch(lambda: False)
    order, weights = pruning.chosen
    assert torch.equal(weights, torch.where(order < 56, 2.0, 1.0)) and len(order) == 42
    seen = torch.zeros(70, dtype=torch.bool)
    seen[order] = True
    assert torch.equal(pruning.losses[~seen], given[~seen])  # what was left out keeps its loss
    losses = pruning.losses[order]
    assert losses.max() < 10 and not torch.isin(losses, given).any()
    assert row["loss"] == pytest.approx(float((losses * weights).sum() / weights.sum()), abs=1e-3)
    first = order
    assert not torch.equal(pruning.choose()[0], first)  # the next epoch draws anew


@needs_wsd
def test_smaller_crops_come_first_and_what_they_are_is_the_run_s(data):
    recipe = Recipe(epochs=4, batch_size=16, crop=24, crop_epochs=0.5, sched="wsd", warmup_epochs=0, decay_epochs=1)
    device = torch.device("cpu")
    run = Run(MODEL, recipe)
    training = trainer.Trainer(run, runs.load_data(run, data, device), device)
    sides = []
    for training.step in range(4 * STEPS):
        sides.append(training.batch(torch.arange(16))[0].shape[-1])
    assert sides == [24] * 2 * STEPS + [32] * 2 * STEPS
    longer = replace(run, recipe=replace(recipe, epochs=8))
    runs.check_same_run(run.as_dict(), longer, 2 * STEPS, STEPS)
    with pytest.raises(ValueError, match="it has epochs 4 and not 8"):
        runs.check_same_run(run.as_dict(), longer, 2 * STEPS + 1, STEPS)


def test_dead_channels_are_counted_and_nothing_else_changes():
    norms = torch.nn.BatchNorm2d(4), BatchNormAct2d(4)  # the ReLU after the norm, and inside it
    net = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 1), norms[0], torch.nn.ReLU(inplace=True), norms[1]).train()
    norms[1].bias.data.fill_(1.0)  # lets a channel through that was dead before it
    images = torch.randn(5, 3, 6, 6)
    assert dead.dead_share(net, images) == 0
    for norm, channels in zip(norms, ([1], [0, 3]), strict=True):
        norm.bias.data[channels] = -1e3
    before, state = {k: v.clone() for k, v in net.state_dict().items()}, torch.get_rng_state()
    assert dead.dead_share(net, images) == pytest.approx(3 / 8)
    assert net.training and all(torch.equal(before[k], v) for k, v in net.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state)
    assert not any(module._forward_hooks for module in net.modules())


def test_error_percent_counts():
    class First(torch.nn.Module):
        def forward(self, x):
            return -x.mean((2, 3))

    images = torch.zeros(10, 3, 4, 4, dtype=torch.uint8)
    images[:, 1:] = 200  # class 0 is the least everywhere
    labels = torch.tensor([0] * 7 + [1, 2, 2])
    assert trainer.error_percent(First(), images, labels, batch_size=4) == pytest.approx(30.0)


def test_stopwatch_sums_what_is_inside(monkeypatch):
    clock = iter([1.0, 3.0, 10.0, 10.5])
    monkeypatch.setattr(trainer.time, "perf_counter", lambda: next(clock))
    watch = trainer.Stopwatch(torch.device("cpu"))
    for _ in range(2):
        watch.start()
        watch.stop()
    assert watch.seconds() == pytest.approx(2.5)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.parametrize("mixup", [0.0, 0.3])
def test_an_update_never_waits_for_the_gpu(data, mixup):
    recipe = Recipe(batch_size=16, epochs=3, mixup=mixup, cutout=4, ema_every=1)
    device = torch.device("cuda")
    run = Run(MODEL, recipe)
    training, updates = trainer.Trainer(run, runs.load_data(run, data, device), device), iter(range(STEPS))

    def watch():
        update = next(updates)
        torch.cuda.set_sync_debug_mode("error" if update in (1, 2) else "default")
        return update == STEPS - 1

    try:
        assert training.epoch(watch) is None and training.step == STEPS - 1
    finally:
        torch.cuda.set_sync_debug_mode("default")
