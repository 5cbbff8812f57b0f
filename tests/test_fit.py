"""Every kind of network can learn: a batch of real digits is fitted, and each parameter takes part."""

import pytest
import timm
import torch
import torch.nn.functional as F
from helpers import tiny
from timm.optim import create_optimizer_v2

VARIANTS = [
    dict(),
    dict(attn_act="channel"),
    dict(attn_act="spatial"),
    dict(attn_residual=False),
    dict(mask_type="local_conv"),
    dict(mask_type="none"),
    dict(double_skip=True),
    dict(unit_type="postact"),
    dict(unit_type="inception"),
]


def fit(model, size, steps):
    """Losses of ``steps`` steps on one batch, and the names of the parameters that did not move."""
    datasets = pytest.importorskip("sklearn.datasets")
    digits = datasets.load_digits(n_class=5)
    images = F.interpolate(torch.from_numpy(digits.images[:32, None]).float() / 16, size=(size, size))
    labels = torch.from_numpy(digits.target[:32])
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    optimizer = create_optimizer_v2(model, opt="adamw", lr=1e-2, weight_decay=0.0)
    losses = []
    for _ in range(steps):
        loss = F.cross_entropy(model(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses, [name for name, p in model.named_parameters() if torch.equal(p, before[name])]


@pytest.mark.parametrize("kwargs", VARIANTS, ids=lambda kwargs: "-".join(map(str, kwargs.values())) or "paper")
def test_small_networks_fit(kwargs):
    losses, unmoved = fit(tiny(in_chans=1, **kwargs), size=16, steps=30)
    assert losses[-1] < 0.5 * losses[0], losses
    assert not unmoved


def test_resattn56_cifar_fits():
    losses, unmoved = fit(timm.create_model("resattn56_cifar", in_chans=1, num_classes=5), size=32, steps=8)
    assert losses[-1] < 0.5 * losses[0], losses
    assert not unmoved
