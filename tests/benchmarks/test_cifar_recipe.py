"""Recipes: what they may hold, their schedules, and what timm makes of them."""

from dataclasses import asdict, fields
from itertools import pairwise

import pytest
import timm
import torch
from cifar_runs import MODEL, SMALL, needs_wsd
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.cifar import __main__ as command
from benchmarks.cifar import arguments
from benchmarks.cifar import recipe as recipes
from benchmarks.cifar.recipe import RECIPES, Recipe


def test_the_paper_s_schedule():
    paper = RECIPES["paper"]
    rates = recipes.learning_rates(paper, 781, 781 * paper.epochs)
    changes = [i for i in range(1, len(rates)) if rates[i] != rates[i - 1]]
    assert changes == pytest.approx([64_000, 96_000], rel=2e-3) and len(rates) == pytest.approx(160_000, rel=2e-3)
    assert [rates[0], *(rates[i] for i in changes)] == pytest.approx([0.1, 0.01, 0.001])


@given(
    epochs=st.integers(2, 12),
    steps=st.integers(20, 60),
    warmup=st.floats(0, 1.5),
    decay=st.floats(0.1, 0.9),
    sched=st.sampled_from([s for s in recipes.SCHEDULES if s != "wsd" or hasattr(timm.scheduler, "WSDLRScheduler")]),
)
@settings(max_examples=60, deadline=None)
def test_a_schedule_rises_once_and_falls(epochs, steps, warmup, decay, sched):
    recipe = Recipe(epochs=epochs, warmup_epochs=warmup, decay_epochs=decay, sched=sched)
    rates = recipes.learning_rates(recipe, steps, epochs * steps)
    top = rates.index(max(rates))
    assert all(a <= b for a, b in pairwise(rates[: top + 1]))
    assert all(a >= b for a, b in pairwise(rates[top:]))
    assert min(rates) >= 0 and max(rates) <= recipe.lr * (1 + 1e-9)
    assert top <= warmup * steps + 1


@needs_wsd
def test_wsd_can_be_prolonged_and_ends_at_zero():
    short, long = (Recipe(epochs=n, sched="wsd", warmup_epochs=1, decay_epochs=2) for n in (6, 12))
    first, second = (recipes.learning_rates(recipe, 10, recipe.epochs * 10) for recipe in (short, long))
    assert first[:41] == second[:41] and first[10:41] == [short.lr] * 31
    assert first[41] < short.lr and 0 < first[-1] == pytest.approx(short.lr / 20)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (dict(epochs=0), "epochs must be an integer of at least 1; got 0"),
        (dict(batch_size=0), "batch_size must be"),
        (dict(lr=0.0), "lr must be greater than 0"),
        (dict(lr=float("nan")), "lr must be greater than 0"),
        (dict(weight_decay=-1.0), "weight_decay must be at least 0"),
        (dict(smoothing=1.0), "smoothing must be at least 0 and less than 1"),
        (dict(epochs=2, warmup_epochs=2.0), "warmup_epochs must be at least 0 and less than epochs"),
        (dict(sched="step"), "sched must be one of multistep, cosine, onecycle, wsd; got 'step'"),
        (dict(mean="none"), "mean must be one of channel, pixel; got 'none'"),
        (dict(sched="wsd", epochs=4, decay_epochs=9), "decay_epochs must be greater than 0"),
        (dict(mixup=0.2, batch_size=3), "batch_size must be even"),
        (dict(crop=-1), "crop must be at least 0; got -1"),
        (dict(crop_epochs=1.5), "crop_epochs must be from 0 to 1; got 1.5"),
        (dict(prune=0.6), "prune must be from 0 to 0.5; got 0.6"),
        (dict(prune=0.3, cutmix=1.0), "prune must be 0 with mixup or cutmix"),
        (dict(fallback_lr_scale=0.0), "fallback_lr_scale must be greater than 0; got 0.0"),
        (dict(opt="sgd", fallback_lr_scale=0.1), "fallback_lr_scale must be 1 unless opt is muon"),
    ],
)
def test_values_that_no_recipe_has(values, message):
    with pytest.raises(ValueError, match=message):
        Recipe(**values)


def test_what_is_decayed():
    model = timm.create_model(MODEL)
    count = {
        True: sum(p.numel() for p in model.parameters()),
        False: sum(p.numel() for p in model.parameters() if p.ndim > 1),
    }
    for recipe in RECIPES.values():
        decayed = [g for g in recipes.create_optimizer(recipe, model).param_groups if g["weight_decay"]]
        assert {group["weight_decay"] for group in decayed} == {recipe.weight_decay}
        assert sum(p.numel() for group in decayed for p in group["params"]) == count[recipe.decay_all]


@pytest.mark.parametrize("opt", ["adamuon", "nadamuon"])
def test_adamuon_takes_each_weight_alone(opt):
    """Its step has the norm of the whole parameter, which of stacked weights would be another one."""
    model = timm.create_model(MODEL, depths=(1, 0, 0), widths=(16, 16, 16), mask_pools=(1, 1, 1))
    groups = recipes.create_optimizer(Recipe(opt=opt), model).param_groups
    assert {id(p) for group in groups for p in group["params"]} == {id(p) for p in model.parameters()}


def test_fallback_lr_scale_slows_norms_and_biases_alone():
    """The first update of AdamW is the learning rate in size; Muon's does not know of the scale."""
    moved = {}
    for scale in (1.0, 0.1):
        torch.manual_seed(0)
        # none narrower: Muon leaves what has fewer than four rows to AdamW, too
        model = timm.create_model(MODEL, depths=(1, 0, 0), widths=(16, 16, 16), mask_pools=(1, 1, 1))
        optimizer = recipes.create_optimizer(Recipe(weight_decay=0.0, fallback_lr_scale=scale), model)
        before = {name: p.detach().clone() for name, p in model.named_parameters()}
        model(torch.randn(8, 3, 32, 32)).square().sum().backward()
        optimizer.step()
        moved[scale] = {name: (p.detach() - before[name]).abs().max().item() for name, p in model.named_parameters()}
    for name, parameter in model.named_parameters():
        ratio = moved[0.1][name] / moved[1.0][name]
        assert ratio == pytest.approx(1.0 if parameter.ndim > 1 else 0.1, rel=0.01), name


def test_mixed_targets_are_distributions():
    recipe = Recipe(mixup=0.5, cutmix=1.0)
    mixup, loss = recipes.create_mixup(recipe, 10), recipes.create_loss(recipe)
    images, labels = torch.rand(8, 3, 32, 32), torch.arange(8)
    mixed, targets = mixup(images.clone(), labels)
    assert targets.shape == (8, 10) and torch.allclose(targets.sum(1), torch.ones(8)) and not torch.equal(mixed, images)
    logits = torch.randn(8, 10)
    assert torch.allclose(loss(logits, targets), -(targets * logits.log_softmax(1)).sum(1).mean())
    assert recipes.create_mixup(Recipe(), 10) is None


def test_every_value_of_a_recipe_has_an_option():
    args = command.build_parser().parse_args([*SMALL, "--data-dir", "x", "--out", "y"])
    assert {field.name for field in fields(Recipe)} <= vars(args).keys()
    plain = {"batch_size": 16, "prune": 0, "crop": 0, "cutout": 0}
    assert asdict(arguments.recipe_of(args)) == {**asdict(RECIPES["modern"]), **plain}
