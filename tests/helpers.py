"""Small networks and comparisons that several test files share."""

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
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

# one of each kind of option
OPTIONS = {
    "preact": {},
    "postact": dict(unit_type="postact"),
    "resnext": dict(unit_type="postact", groups=4, bottle_ratio=0.5),
    "inception": dict(unit_type="inception"),
    "double_skip": dict(double_skip=True, mask_pools=(3, 2)),
    "double_skip_postact": dict(double_skip=True, unit_type="postact"),
    "local_conv": dict(mask_type="local_conv"),
    "no_mask": dict(mask_type="none"),
    "channel": dict(attn_act="channel"),
    "spatial": dict(attn_act="spatial"),
    "nal": dict(attn_residual=False),
    "ceil": dict(pool_mode="ceil"),
    "imagenet_stem": dict(stem_type="imagenet"),
    "postact_imagenet_stem": dict(stem_type="imagenet", unit_type="postact"),
    "no_pre_units": dict(pre_units=0),
    "many_units": dict(pre_units=2, trunk_units=3, mask_units=2, mask_up_units=2),
    "first_unit_without_projection": dict(widths=(16, 16), stem_chs=16, output_stride=8),
    "dilated": dict(depths=(1, 1, 1, 1), widths=(8, 16, 16, 16), closing_units=(0, 0, 0, 1), mask_pools=(1,) * 4)
    | dict(stem_type="imagenet", output_stride=8),
    "silu": dict(act_layer="silu"),
    "layer_norm": dict(norm_layer="layernorm2d"),
    "layer_norm_postact": dict(norm_layer="layernorm2d", unit_type="postact"),
    "drop_path": dict(drop_path_rate=0.2),
}
ODD = (3, 3, 45, 37)


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


def images(size, batch=2, in_chans=3, seed=0):
    """Blobs and noise: neighbouring pixels are alike, as in photographs."""
    generator = torch.Generator().manual_seed(seed)
    blobs = torch.randn(batch, in_chans, 6, 6, generator=generator)
    blobs = F.interpolate(blobs, size=(size, size), mode="bicubic")
    return 1.5 * blobs + 0.3 * torch.randn(batch, in_chans, size, size, generator=generator)


def lived_in(model, size=64, batch=8, in_chans=3):
    """Random affine norms (negative and zero weights too), then statistics of the maps they really see."""
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    for norm in norms:
        nn.init.normal_(norm.weight, 0.8, 0.4)
        nn.init.normal_(norm.bias, 0.0, 0.3)
        with torch.no_grad():
            norm.weight[:: max(1, len(norm.weight) // 3)] = 0.0
        norm.reset_running_stats()
        norm.momentum = None  # the plain average over the batches
    model.train()
    with torch.no_grad():
        for seed in range(3):
            model(images(size, batch, in_chans, seed=100 + seed))
    for norm in norms:
        norm.momentum = 0.1
    return model.eval()


def noise(*shape: int) -> torch.Tensor:
    """The same random numbers at each call."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(7))


def fine_tuned(**options) -> nn.Module:
    """A tiny network after random running statistics and three steps of training, in evaluation mode."""
    torch.manual_seed(1)
    model = live_in(tiny(**options)).train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    for step in range(3):
        optimizer.zero_grad()
        model(noise(4, 3, 40, 40) + step).logsumexp(1).sum().backward()
        optimizer.step()
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
