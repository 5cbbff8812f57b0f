"""Hooks on every module, with and without gradient checkpointing: each part is reached through its call."""

import copy
from collections import Counter

import pytest
import torch
from helpers import OPTIONS, relative_error, tiny
from torch import nn

from timm_resattn.visualize import capture_masks

KINDS = ("preact", "resnext", "inception", "double_skip", "local_conv", "no_mask", "postact_imagenet_stem")
KINDS += ("no_pre_units", "many_units", "drop_path", "nal")
CHECKPOINTING = pytest.mark.parametrize("checkpointing", [False, True], ids=["plain", "checkpointing"])
X = torch.randn(3, 3, 20, 16, generator=torch.Generator().manual_seed(3))


def _gradients(model):
    torch.manual_seed(2)  # of drop path
    model(X).square().sum().backward()
    return {name: p.grad for name, p in model.named_parameters()}


def _assert_close(grads, expected):
    assert grads.keys() == expected.keys()
    for name, grad in grads.items():
        assert torch.allclose(grad, expected[name], rtol=1e-4, atol=1e-5 * expected[name].abs().max() + 1e-7), name


@pytest.mark.filterwarnings("ignore:Full backward hook is firing")  # images need no gradient
@CHECKPOINTING
@pytest.mark.parametrize("mode", ["train", "eval"])
@pytest.mark.parametrize("kind", KINDS)
def test_every_module_runs_its_hooks(kind, mode, checkpointing):
    model = tiny(**OPTIONS[kind]).train(mode == "train")
    expected = _gradients(copy.deepcopy(model))
    model.set_grad_checkpointing(checkpointing)
    before, after, backward = Counter(), Counter(), Counter()
    for name, module in model.named_modules():
        module.register_forward_pre_hook(lambda module, args, name=name: before.update([name]))
        module.register_forward_hook(lambda module, args, output, name=name: after.update([name]))
        module.register_full_backward_hook(lambda module, before, after, name=name: backward.update([name]))
    _assert_close(_gradients(model), expected)
    names = {name for name, _ in model.named_modules()}
    # an empty sequence of units and a mask's unused argument included
    for counts in (before, after, backward):
        assert set(counts) == names
        assert checkpointing or set(counts.values()) == {1}
    assert set(backward.values()) == {1}


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_is_recomputed_without_gradients(kind):
    model = tiny(**OPTIONS[kind]).train()
    model.set_grad_checkpointing()
    counts = Counter()
    for name, module in model.named_modules():
        module.register_forward_hook(lambda module, args, output, name=name: counts.update([name]))
    for no_grad in (torch.no_grad, torch.inference_mode):
        counts.clear()
        with no_grad():
            model(X)
        assert set(counts) == {name for name, _ in model.named_modules()}
        assert set(counts.values()) == {1}


def test_checkpointing_recomputes_units_and_masks_once():
    model = tiny(mask_pools=(3, 2)).train()
    model.set_grad_checkpointing()
    counts = Counter()
    for name, module in model.named_modules():
        if isinstance(module, nn.Conv2d):
            # before it: recomputing ends within the last convolution, once its input is there
            module.register_forward_pre_hook(lambda module, args, name=name: counts.update([name]))
    _gradients(model)
    assert counts.pop("stem.conv") == 1
    assert set(counts.values()) == {2}


@pytest.mark.parametrize("momentum", [0.1, None], ids=["moving", "cumulative"])
@pytest.mark.parametrize("kind", KINDS)
def test_recomputing_counts_a_batch_once(kind, momentum):
    model = tiny(**OPTIONS[kind]).train()
    for norm in model.modules():
        if isinstance(norm, nn.BatchNorm2d):
            norm.momentum = momentum
    twin = copy.deepcopy(model)
    twin.set_grad_checkpointing()
    for net in (model, twin):
        for _ in range(2):
            _gradients(net)
    for (name, a), b in zip(model.named_buffers(), twin.buffers(), strict=True):
        assert torch.equal(a, b), name
    assert all(norm.momentum == momentum for norm in twin.modules() if isinstance(norm, nn.BatchNorm2d))


@CHECKPOINTING
@pytest.mark.parametrize("frozen", ["stem", "stages.0", "mask", "norms", "all but head"])
def test_frozen_parameters(frozen, checkpointing):
    model = tiny().train()
    for name, p in model.named_parameters():
        held = not name.startswith("head") if frozen == "all but head" else frozen in name
        held = "norm" in name if frozen == "norms" else held
        p.requires_grad_(not held)
    expected = {name: grad for name, grad in _gradients(copy.deepcopy(model)).items() if grad is not None}
    assert 0 < len(expected) < sum(1 for _ in model.parameters())
    model.set_grad_checkpointing(checkpointing)
    _assert_close({name: grad for name, grad in _gradients(model).items() if grad is not None}, expected)


@CHECKPOINTING
@pytest.mark.parametrize("mode", ["train", "eval"])
@pytest.mark.parametrize("kind", ["preact", "double_skip", "local_conv"])
def test_masks_are_captured(kind, mode, checkpointing):
    model = tiny(**OPTIONS[kind]).train(mode == "train")
    twin = copy.deepcopy(model)
    with capture_masks(twin) as expected:
        twin(X)
    model.set_grad_checkpointing(checkpointing)
    with capture_masks(model) as masks:
        _gradients(model)
    assert list(masks) == list(expected) == ["stages.0.blocks.1", "stages.1.blocks.1"]
    assert all(relative_error(masks[name], expected[name]) < 1e-5 for name in masks)
