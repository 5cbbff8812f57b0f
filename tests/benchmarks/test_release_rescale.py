"""Weights are rescaled exactly: logits bit for bit, pooled features of size 1."""

import copy

import pytest
import torch
from helpers import images, lived_in, tiny

from benchmarks.release.rescale import rescale


@pytest.mark.parametrize("factor", [1.0, 0.037, 300.0])
def test_logits_stay_bit_equal(factor):
    model = lived_in(tiny(), size=32)
    with torch.no_grad():
        model.norm.weight *= factor
        model.norm.bias *= factor
    before = copy.deepcopy(model)
    x = images(32, batch=8)
    scale = rescale(model, x)
    assert scale.hex().startswith("0x1.0000000000000p")
    noise = torch.randn(3, 3, 45, 32)
    with torch.no_grad():
        assert torch.equal(model(x), before(x)) and torch.equal(model(noise), before(noise))
        features = model.forward_head(model.forward_features(x), pre_logits=True)
    assert 0.7 < features.square().mean().sqrt() < 1.42
