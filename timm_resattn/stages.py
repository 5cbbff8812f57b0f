"""Stem and stages, and how sizes, strides and dilations run through them."""

from collections import OrderedDict
from functools import partial
from itertools import count, islice
from typing import Any, Callable, List, Sequence, Tuple

import torch
from timm.layers import create_conv2d
from torch import nn

from .attention import AttentionModule
from .fold import fold_norm
from .grad_checkpointing import CheckpointSequential
from .mask import POOL_MODES, pooled_size

__all__ = ["STEM_TYPES", "ResAttnStage", "Stem", "create_stem", "min_input_size", "plan_strides"]

STEM_TYPES = ("imagenet", "cifar")


class ResAttnStage(nn.Module):
    """One stage: a residual unit that sets stride and width, Attention Modules, closing residual units.

    Shape: ``(B, in_chs, H, W) -> (B, out_chs, ceil(H / stride), ceil(W / stride))``.

    Args:
        in_chs: Input channels.
        out_chs: Output channels.
        depth: Attention Modules.
        stride: Stride of the first unit.
        dilations: Dilation of the first unit, that of the map which it reads, and of what follows.
        drop_path_rates: Stochastic depth of each residual unit, those of the modules' trunks among them.
        unit: Makes a residual unit from input and output channels, stride, dilation and drop path rate.
        module: Makes an Attention Module from its channels, a unit and its drop path rates, see `AttentionModule`.
        module_units: Units of a module, masks' not counted.
    """

    def __init__(
        self,
        in_chs: int,
        out_chs: int,
        depth: int,
        stride: int,
        dilations: Tuple[int, int],
        drop_path_rates: Sequence[float],
        unit: Callable[..., nn.Module],
        module: Callable[..., nn.Module] = AttentionModule,
        module_units: int = 4,
    ) -> None:
        super().__init__()
        rates = iter(drop_path_rates)
        self.blocks = CheckpointSequential(
            unit(in_chs, out_chs, stride=stride, dilation=dilations[0], drop_path_rate=next(rates))
        )
        keep = partial(unit, out_chs, out_chs, dilation=dilations[1])
        for _ in range(depth):
            self.blocks.append(module(out_chs, keep, drop_path_rates=list(islice(rates, module_units))))
        for rate in rates:
            self.blocks.append(keep(drop_path_rate=rate))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.blocks(x)


class Stem(nn.Sequential):
    """First layers, by their names ``conv``, ``norm``, ``act`` and ``pool``; the last three not in every network.

    ``imagenet``: 7x7/2 convolution, norm and activation, 3x3/2 max pooling. ``cifar``: 3x3 convolution, and norm and
    activation unless the units are pre-activated. Its feature map is the one before the pooling.
    """

    def reparameterize(self) -> None:
        """Fold the norm into the convolution."""
        fold_norm(self, "conv", "norm")


def create_stem(
    in_chans: int,
    stem_chs: int,
    stem_type: str,
    pool_mode: str,
    preact: bool,
    act_layer: Callable[..., nn.Module],
    norm_layer: Callable[..., nn.Module],
    device: Any = None,
    dtype: Any = None,
) -> Stem:
    """The stem of that type, see `Stem`."""
    dd = {"device": device, "dtype": dtype}
    imagenet = stem_type == "imagenet"
    stem: OrderedDict[str, nn.Module] = OrderedDict()
    stem["conv"] = create_conv2d(in_chans, stem_chs, 7 if imagenet else 3, stride=2 if imagenet else 1, **dd)
    if imagenet or not preact:
        stem["norm"] = norm_layer(stem_chs, **dd)
        stem["act"] = act_layer()
    if imagenet:
        stem["pool"] = POOL_MODES[pool_mode]()
    return Stem(stem)


def min_input_size(stem_type: str, strides: Sequence[int], mask_pools: Sequence[int], pool_mode: str) -> int:
    """Least side of an image for which every mask pooling sees two pixels or more, and the stem's what it needs."""

    def holds(size: int) -> bool:
        if stem_type == "imagenet":
            size = pooled_size((size + 1) // 2, pool_mode)
        if size < 1:
            return False
        for stride, pools in zip(strides, mask_pools):
            size = mask_size = -(-size // stride)
            for _ in range(pools):
                if mask_size < 2:
                    return False
                mask_size = pooled_size(mask_size, pool_mode)
        return True

    return next(size for size in count(1) if holds(size))


def plan_strides(num_stages: int, stem_stride: int, output_stride: int) -> Tuple[List[int], List[int]]:
    """Stride of each stage's first unit, and dilation of the map before each stage and after the last."""
    strides: List[int] = []
    dilations = [1]
    reduction = stem_stride
    for stage_idx in range(num_stages):
        stride = 1 if stage_idx == 0 else 2
        dilate = reduction * stride > output_stride
        strides.append(1 if dilate else stride)
        dilations.append(dilations[-1] * stride if dilate else dilations[-1])
        reduction *= strides[-1]
    return strides, dilations
