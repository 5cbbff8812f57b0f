"""Gradients of each sample, through torch.func."""

import pytest
import torch
import torch.nn.functional as F
from helpers import OPTIONS, live_in, tiny
from torch.func import functional_call, grad, vmap

X = torch.randn(3, 3, 20, 17, generator=torch.Generator().manual_seed(3)).double()
LABELS = torch.tensor([4, 0, 2])


@pytest.mark.parametrize("case", ["eval", "train"])
@pytest.mark.parametrize("kind", ["preact", "resnext", "inception", "double_skip", "local_conv", "channel", "spatial"])
def test_gradients_of_each_sample(kind, case):
    """In training mode only with norms that do not mix the samples of a batch."""
    norm_layer = "batchnorm2d" if case == "eval" else "groupnorm"
    model = live_in(tiny(**OPTIONS[kind], norm_layer=norm_layer)).double().train(case == "train")
    parameters = {name: p.detach() for name, p in model.named_parameters()}
    buffers = dict(model.named_buffers())

    def loss(parameters, image, label):
        logits = functional_call(model, (parameters, buffers), (image[None],))
        return F.cross_entropy(logits, label[None])

    grads = vmap(grad(loss), in_dims=(None, 0, 0))(parameters, X, LABELS)
    for i in range(len(X)):
        model.zero_grad()
        F.cross_entropy(model(X[i : i + 1]), LABELS[i : i + 1]).backward()
        for name, p in model.named_parameters():
            assert torch.allclose(grads[name][i], p.grad, rtol=1e-6, atol=1e-12), name
