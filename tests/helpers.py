"""Small networks and comparisons that several test files share."""

from pathlib import Path

import numpy as np
import torch
from torch import nn

from timm_resattn import ResAttn

# a two-stage network that builds and runs in milliseconds, with two modules and masks of two and one poolings
TINY_ARGS = dict(
    depths=(1, 1),
    widths=(16, 32),
    closing_units=(0, 1),
    mask_pools=(2, 1),
    stem_type="cifar",
    stem_chs=8,
    num_classes=5,
)


def tiny(**kwargs) -> ResAttn:
    """A tiny CIFAR-style network; ``kwargs`` override `TINY_ARGS`."""
    return ResAttn(**{**TINY_ARGS, **kwargs})


def live_in(model: nn.Module, seed: int = 0) -> nn.Module:
    """Random affine parameters and running statistics in every norm, as after training; returns the model in eval."""
    generator = torch.Generator().manual_seed(seed)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            chs = module.num_features
            module.weight.data = 0.2 + 0.4 * torch.rand(chs, generator=generator)
            module.bias.data = 0.3 * torch.randn(chs, generator=generator)
            module.running_mean = 0.3 * torch.randn(chs, generator=generator)
            module.running_var = 0.5 + torch.rand(chs, generator=generator)
    return model.eval()


def relative_error(a: torch.Tensor, b: torch.Tensor) -> float:
    """Euclidean norm of the difference by that of ``b``."""
    return ((a - b).norm() / b.norm()).item()


def random_cifar(folder: Path, train: int, test: int) -> None:
    """Write ``train.npz`` and ``test.npz`` with so many random images; the labels go round."""
    rng = np.random.default_rng(0)
    for split, count in (("train", train), ("test", test)):
        images = rng.integers(0, 256, (count, 32, 32, 3), np.uint8)
        np.savez(folder / f"{split}.npz", images=images, labels=np.arange(count) % 10)
