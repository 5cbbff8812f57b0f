"""A folded network computes what the network computes."""

import copy

import pytest
import torch
from helpers import ODD, OPTIONS, fine_tuned, live_in, noise, relative_error
from timm.layers import freeze_batch_norm_2d
from timm.utils import reparameterize_model
from torch import nn
from torchvision.ops import FrozenBatchNorm2d

from timm_resattn.fold import fold_norm


def foldable_norms(model: nn.Module) -> int:
    """Batch norms that follow a convolution, by their places in the architecture."""
    after = ("norm2", "norm3", "stem.norm", "branch", "downsample.norm")
    count = 0
    for name, module in model.named_modules():
        if isinstance(module, nn.BatchNorm2d):
            parent = model.get_submodule(name.rpartition(".")[0])
            postact_first = name.endswith("norm1") and not getattr(parent, "preact", True)
            inception_last = name.endswith(".norm") and "blocks" in name
            count += any(part in name for part in after) or postact_first or inception_last
    return count


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_folded_network_is_the_network(options):
    model = fine_tuned(**options)
    folded = reparameterize_model(model)
    x = noise(*ODD)
    with torch.no_grad():
        assert relative_error(folded(x), model(x)) < 1e-5
    assert foldable_norms(folded) == 0
    if "norm_layer" not in options:
        assert foldable_norms(model) > 0


def test_frozen_norms_fold_too():
    model = fine_tuned()
    with torch.no_grad():
        expected = model(noise(*ODD))
        folded = reparameterize_model(freeze_batch_norm_2d(model))
        assert relative_error(folded(noise(*ODD)), expected) < 1e-5
    kinds = [name for name, m in folded.named_modules() if isinstance(m, FrozenBatchNorm2d)]
    assert kinds, "the first norm of each unit stays"
    assert not any(name.endswith(("norm2", "norm3")) for name in kinds)


@pytest.mark.parametrize("unit_type", ["preact", "postact", "inception"])
def test_folding_twice_changes_nothing(unit_type):
    once = reparameterize_model(fine_tuned(unit_type=unit_type))
    twice = reparameterize_model(once)
    assert once.state_dict().keys() == twice.state_dict().keys()
    assert all(torch.equal(value, twice.state_dict()[name]) for name, value in once.state_dict().items())
    assert torch.equal(once(noise(*ODD)), twice(noise(*ODD)))


def test_folding_needs_no_evaluation_mode():
    """timm's validate.py and benchmark.py fold with --reparam before they call eval(), onnx_export.py too."""
    model = fine_tuned()
    folded = reparameterize_model(copy.deepcopy(model).train()).eval()
    assert foldable_norms(folded) == 0
    assert relative_error(folded(noise(*ODD)), model(noise(*ODD))) < 1e-5


def test_folded_network_can_be_trained():
    folded = reparameterize_model(fine_tuned())
    folded(noise(*ODD)).sum().backward()
    assert all(p.grad is not None for p in folded.parameters())


def test_folding_in_half_precision_rounds_once():
    conv = nn.Conv2d(8, 8, 3, padding=1, bias=False)
    norm = live_in(nn.Sequential(nn.BatchNorm2d(8)))[0]
    parent = nn.Module()
    parent.conv, parent.norm = conv.bfloat16(), norm.bfloat16()
    exact = copy.deepcopy(parent).float()
    fold_norm(parent, "conv", "norm")
    fold_norm(exact, "conv", "norm")
    assert torch.equal(parent.conv.weight, exact.conv.weight.bfloat16())
    assert torch.equal(parent.conv.bias, exact.conv.bias.bfloat16())
