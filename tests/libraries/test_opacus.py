"""Opacus: the gradient of each sample, and a private step; batch norms are found and replaced."""

import pytest
import timm
import torch
import torch.nn.functional as F
from helpers import OPTIONS, tiny
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

opacus = pytest.importorskip("opacus")
validators = pytest.importorskip("opacus.validators")

X = torch.randn(3, 3, 20, 17, generator=torch.Generator().manual_seed(3)).double()
LABELS = torch.tensor([4, 0, 2])


@pytest.mark.parametrize("kind", ["preact", "resnext", "inception", "double_skip", "local_conv", "channel", "spatial"])
def test_gradients_of_each_sample(kind):
    model = opacus.GradSampleModule(tiny(**OPTIONS[kind], norm_layer="groupnorm").double())
    F.cross_entropy(model(X), LABELS).backward()
    samples = {name: p.grad_sample for name, p in model.named_parameters()}
    for i in range(len(X)):
        model.zero_grad()
        F.cross_entropy(model(X[i : i + 1]), LABELS[i : i + 1]).backward()
        for name, p in model.named_parameters():
            assert torch.allclose(samples[name][i], p.grad, rtol=1e-6, atol=1e-12), name


def test_a_private_step():
    model = timm.create_model("resattn56_cifar", num_classes=5)
    assert validators.ModuleValidator.validate(model, strict=False)  # batch norms mix the samples of a batch
    model = validators.ModuleValidator.fix(model)
    assert not validators.ModuleValidator.validate(model, strict=False)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in model.modules())
    data = TensorDataset(X.float(), LABELS)
    private, optimizer, loader = opacus.PrivacyEngine().make_private(
        module=model.train(),
        optimizer=torch.optim.SGD(model.parameters(), 0.1),
        data_loader=DataLoader(data, batch_size=3),
        noise_multiplier=1.0,
        max_grad_norm=1.0,
        poisson_sampling=False,
    )
    before = model.head.fc.weight.detach().clone()
    for images, labels in loader:
        F.cross_entropy(private(images), labels).backward()
        optimizer.step()
    assert not torch.equal(model.head.fc.weight, before)
