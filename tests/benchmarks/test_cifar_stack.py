"""Muon over stacked weights is timm's Muon over each of them."""

import copy

import pytest
import timm
import torch
from cifar_runs import MODEL
from timm.optim import create_optimizer_v2

from benchmarks.cifar.stack import stack_parameters

TINY = dict(depths=(1, 1, 0), widths=(8, 32, 32), mask_pools=(1, 1, 1), num_classes=3)
OPTIONS = dict(lr=0.02, momentum=0.9, weight_decay=0.02, fallback_lr_scale=0.1)


@pytest.fixture(params=[torch.contiguous_format, torch.channels_last], ids=["contiguous", "channels_last"])
def model(request):
    return timm.create_model(MODEL, **TINY).to(memory_format=request.param)


@pytest.mark.parametrize("opt", ["nmuon", "muon"])
def test_steps_are_those_of_each_weight_alone(model, opt):
    alone = copy.deepcopy(model)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    stacked, plain = (create_optimizer_v2(network, opt=opt, **OPTIONS) for network in (model, alone))
    stack_parameters(stacked)
    assert all(torch.equal(before[name], p) for name, p in model.named_parameters())
    for step in range(3):
        for group in (*stacked.param_groups, *plain.param_groups):
            group["lr"] = 0.02 / (step + 1)
        for p, q in zip(model.parameters(), alone.parameters(), strict=True):
            q.grad = torch.randn_like(q)
            p.grad = q.grad.clone()
        stacked.step()
        plain.step()
        assert all(p.grad is None for p in model.parameters())
    for (name, p), q in zip(model.named_parameters(), alone.parameters(), strict=True):
        moved = (q - before[name]).norm()
        assert moved > 0 and (p - q).norm() < 0.01 * moved, name  # timm's Muon multiplies in bfloat16


def test_one_parameter_for_a_shape_and_one_for_all_that_adamw_takes(model):
    optimizer = create_optimizer_v2(model, opt="nmuon", **OPTIONS)
    stack_parameters(optimizer)
    weights = [p for p in model.parameters() if p.ndim > 1]
    small = [p for p in weights if min(p.shape[0], p[0].numel()) < 4]  # which Muon leaves to AdamW
    held = [p for group in optimizer.param_groups for p in group["params"]]
    assert sum(p.numel() for p in held) == sum(p.numel() for p in model.parameters())
    shapes = {p.shape for p in weights} - {p.shape for p in small}
    assert sorted(p.ndim for p in held) == [1] * (2 if small else 1) + [3] * len(shapes)


def test_weights_that_are_loaded_later_are_the_optimiser_s(model):
    optimizer = create_optimizer_v2(model, opt="nmuon", **OPTIONS)
    stack_parameters(optimizer)
    other = timm.create_model(MODEL, **TINY)
    model.load_state_dict(other.state_dict())
    for p in model.parameters():
        p.grad = torch.zeros_like(p)
    for group in optimizer.param_groups:
        group["lr"] = 0.0
    optimizer.step()
    assert all(torch.equal(p, q) for p, q in zip(model.parameters(), other.parameters(), strict=True))
