"""The soft mask branch: where the attention of an Attention Module comes from.

Section 3.2 and Figure 2 of the paper ("bottom-up top-down"): max-pooling gathers the context of the whole map,
bilinear interpolation brings it back to each position, two 1x1 convolutions turn it into mask logits ``z`` and an
activation turns those into the mask ``M``, of the shape of the trunk's output.
"""

from bisect import bisect_left
from functools import partial
from typing import Any, Callable, Dict

import torch
import torch.nn.functional as F
from timm.layers import create_conv2d
from torch import nn

from .fold import fold_norm
from .grad_checkpointing import CheckpointSequential, recompute

__all__ = [
    "ATTN_ACTS",
    "POOL_MODES",
    "ChannelAttnAct",
    "LocalConvMask",
    "MaskTail",
    "SoftMask",
    "SpatialAttnAct",
    "check_size",
    "pooled_size",
]


def _at_least_single(z: torch.Tensor) -> torch.Tensor:
    """Half precision as single: squares of it overflow and its epsilons round to 0."""
    return z.float() if z.dtype == torch.float16 or z.dtype == torch.bfloat16 else z


class ChannelAttnAct(nn.Module):
    """f2, channel attention (Eq. 5): ``z[i, c] / ||z[i, :]||_2``, without a sigmoid, so it can be negative.

    Shape: ``(B, C, H, W) -> (B, C, H, W)``, unit L2 norm over C at each position i, computed in single precision.
    """

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        return F.normalize(_at_least_single(z), dim=1).to(z.dtype)


class SpatialAttnAct(nn.Module):
    """f3, spatial attention (Eq. 6): ``sigmoid((z[i, c] - mean_c) / std_c)`` over the positions i of channel c's map.

    Shape: ``(B, C, H, W) -> (B, C, H, W)`` in (0, 1), computed in single precision. **Deviation:** 1e-5 is added to
    the (biased) variance, so that a constant map gives 1/2.
    """

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        exact = _at_least_single(z)
        var, mean = torch.var_mean(exact, dim=(2, 3), unbiased=False, keepdim=True)
        return torch.sigmoid((exact - mean) * torch.rsqrt(var + 1e-5)).to(z.dtype)


# f1 "mixed" attention (Eq. 4) is the plain sigmoid.
ATTN_ACTS: Dict[str, Callable[[], nn.Module]] = {
    "mixed": nn.Sigmoid,
    "channel": ChannelAttnAct,
    "spatial": SpatialAttnAct,
}

# 3x3 max pooling, stride 2. "pad": padding 1, as every PyTorch ResNet. "ceil": no padding, incomplete windows
# count, as Caffe pools and the authors trained. For even sizes both halve, one pixel apart.
POOL_MODES: Dict[str, Callable[[], nn.Module]] = {
    "pad": partial(nn.MaxPool2d, kernel_size=3, stride=2, padding=1),
    "ceil": partial(nn.MaxPool2d, kernel_size=3, stride=2, ceil_mode=True),
}


def pooled_size(size: int, pool_mode: str) -> int:
    """Side of a map of side ``size`` after the max pooling of ``pool_mode``; 0 if it is too small to be pooled."""
    return (size + 1) // 2 if pool_mode == "pad" else size // 2


def check_size(x: torch.Tensor, least: int, min_input_size: int) -> torch.Tensor:
    """``x`` as it is, or a `ValueError` if its map's sides are not at least ``least``: the input image is too small."""
    # a trace records no branch and warns of one
    if not torch.jit.is_tracing() and (x.shape[-2] < least or x.shape[-1] < least):
        raise ValueError(
            f"Input image too small: the masks and poolings of this network need at least "
            f"{min_input_size}x{min_input_size} pixels."
        )
    return x


torch.fx.wrap("check_size")  # a leaf for fx, which can't trace a branch on a shape


class _MaskLevel(nn.Module):
    """One level of the bottom-up top-down pyramid, with all levels below it inside.

    ``D = units(maxpool(x))``; on the lowest level ``y = unit(D)``, above it
    ``y = units(inner(D) + skip(D))``; the result is ``y`` interpolated to the size of ``x``.

    Shape: ``(B, C, H, W) -> (B, C, H, W)``.
    """

    def __init__(
        self,
        unit: Callable[..., nn.Module],
        pools: int,
        mask_units: int,
        mask_up_units: int,
        double_skip: bool,
        pool_mode: str,
    ) -> None:
        super().__init__()
        self.double_skip = double_skip
        self.down = nn.Sequential(POOL_MODES[pool_mode](), *[unit() for _ in range(mask_units)])
        lowest = pools == 1
        self.skip = None if lowest else unit()
        self.inner = None if lowest else _MaskLevel(unit, pools - 1, mask_units, mask_up_units, double_skip, pool_mode)
        self.up = nn.Sequential(*[unit() for _ in range(1 if lowest else mask_up_units)])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.down(x)
        if self.inner is not None and self.skip is not None:
            inner = self.inner(y)  # first: the deepest levels run while the least is held
            skip = self.skip(y)
            if self.double_skip:
                skip = skip + y
            y = inner + skip
        y = self.up(y)
        return F.interpolate(y, size=x.shape[-2:], mode="bilinear", align_corners=True)


class MaskTail(nn.Module):
    """From features to the mask: two 1x1 convolutions that keep the width, then the mask's activation.

    Pre-activation trunk: norm, act, conv, norm, act, conv, activation; post-activation trunk: the same without the
    first norm and act.

    Shape: ``(B, C, H, W) -> (B, C, H, W)``.

    Args:
        chs: Channels C.
        attn_act: Key of `ATTN_ACTS`.
        preact: Whether the trunk is pre-activated.
        act_layer: Activation between the layers, called without arguments.
        norm_layer: Norm, called as ``norm_layer(chs)``.
    """

    def __init__(
        self,
        chs: int,
        attn_act: str = "mixed",
        preact: bool = True,
        *,
        act_layer: Callable[..., nn.Module] = nn.ReLU,
        norm_layer: Callable[..., nn.Module] = nn.BatchNorm2d,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__()
        dd = {"device": device, "dtype": dtype}
        self.norm1 = norm_layer(chs, **dd) if preact else nn.Identity()
        self.act1 = act_layer() if preact else nn.Identity()
        self.conv1 = create_conv2d(chs, chs, 1, **dd)
        self.norm2 = norm_layer(chs, **dd)
        self.act2 = act_layer()
        self.conv2 = create_conv2d(chs, chs, 1, **dd)
        self.attn_act = ATTN_ACTS[attn_act]()

    def reparameterize(self) -> None:
        """Fold the inner norm into the convolution before it."""
        fold_norm(self, "conv1", "norm2")

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.conv1(self.act1(self.norm1(x)))
        x = self.conv2(self.act2(self.norm2(x)))
        return self.attn_act(x)


class SoftMask(nn.Module):
    """The paper's encoder-decoder mask: ``M = tail(pyramid(x))``.

    The pyramid pools ``pools`` times. On its way down each pooling is followed by ``mask_units`` residual units
    (the paper's r), one more unit works on the lowest level; on the way up, at each size except the full one, the
    interpolated map and one unit's view of the same-size map on the way down are added and pass ``mask_up_units``
    units. No skip at full resolution. Maps are interpolated to the size of the map that they meet, never by a fixed
    factor, so any input size works.

    Shape: ``x``, ``trunk`` ``(B, C, H, W) -> (B, C, H, W)``; ``trunk`` is used by ``double_skip`` only.

    Args:
        chs: Channels C.
        unit: Makes one residual unit that keeps the shape.
        tail: Makes the tail, as ``tail(chs)``, see `MaskTail`.
        pools: Number of poolings, at least 1.
        mask_units: Residual units after each pooling (r).
        mask_up_units: Residual units after each sum on the way up. **Deviation:** the paper has one network with
            r > 1, Attention-452; its size is met best with one unit here.
        double_skip: Reproduce a misreading that most ports share: each skip also adds the raw map
            (``D + unit(D)``) and the trunk's output is added to the pyramid's.
        pool_mode: Key of `POOL_MODES`.
        min_input_size: Least side of the network's input image, for the error message.

    Raises:
        ValueError: In forward, when the map is smaller than the pyramid can hold.
    """

    def __init__(
        self,
        chs: int,
        unit: Callable[..., nn.Module],
        tail: Callable[..., nn.Module] = MaskTail,
        pools: int = 1,
        mask_units: int = 1,
        mask_up_units: int = 1,
        double_skip: bool = False,
        pool_mode: str = "pad",
        min_input_size: int = 1,
    ) -> None:
        super().__init__()
        self.double_skip = double_skip
        self.grad_checkpointing = False
        self.min_map_size = 2 ** (pools - 1) + 1 if pool_mode == "pad" else 2**pools
        self.min_input_size = min_input_size
        self.pyramid = _MaskLevel(unit, pools, mask_units, mask_up_units, double_skip, pool_mode)
        self.tail = tail(chs)

    def forward(self, x: torch.Tensor, trunk: torch.Tensor) -> torch.Tensor:
        x = check_size(x, self.min_map_size, self.min_input_size)
        if self.grad_checkpointing and not torch.jit.is_scripting():
            x = recompute(self.pyramid, x)
            return recompute(self.tail, x + trunk if self.double_skip else x)
        x = self.pyramid(x)
        if self.double_skip:
            x = x + trunk
        return self.tail(x)


class LocalConvMask(nn.Module):
    """The control of Table 4: a mask without down- or up-sampling, ``M = tail(unit(unit(unit(x))))``.

    Its units are narrower than the trunk's, so that three of them cost what the units of a `SoftMask` would: each
    pooling quarters the cost of what follows. Of the widths that keep the channels per group the smallest is taken
    that costs no less, or the one below if that is nearer.

    Shape: ``x``, ``trunk`` ``(B, C, H, W) -> (B, C, H, W)``; ``trunk`` is not used.

    Args:
        chs: Channels C.
        unit: Makes one residual unit that keeps the shape; also takes ``mid_chs``, ``groups`` and ``device``.
        tail: Makes the tail, as ``tail(chs)``, see `MaskTail`.
        mid_chs: Channels of the trunk units' 3x3 convolution.
        groups: Groups of the trunk units' 3x3 convolution.
        pools: Poolings of the `SoftMask` whose cost is met.
        mask_units: Its units after each pooling.
        mask_up_units: Its units after each sum on the way up.
    """

    def __init__(
        self,
        chs: int,
        unit: Callable[..., nn.Module],
        tail: Callable[..., nn.Module],
        mid_chs: int,
        groups: int = 1,
        pools: int = 1,
        mask_units: int = 1,
        mask_up_units: int = 1,
    ) -> None:
        super().__init__()
        group_width = mid_chs // groups if groups > 1 else 1

        def narrow(steps: int, **kwargs: Any) -> nn.Module:
            return unit(mid_chs=steps * group_width, groups=steps if groups > 1 else 1, **kwargs)

        def cost(unit: nn.Module) -> int:
            """Convolution weights, which are the multiply-accumulates per position at stride 1."""
            return sum(m.weight.numel() for m in unit.modules() if isinstance(m, nn.Conv2d))

        def narrow_cost(steps: int) -> int:
            return cost(narrow(steps, device="meta"))

        units_at_level = [mask_units + 1 + mask_up_units] * (pools - 1) + [mask_units + 1]
        share = sum(units / 4**level for level, units in enumerate(units_at_level, start=1)) / 3
        target = share * cost(unit(mid_chs=mid_chs, groups=groups, device="meta"))
        steps = bisect_left(range(1, 4 * mid_chs // group_width), target, key=narrow_cost) + 1
        if steps > 1 and target - narrow_cost(steps - 1) < narrow_cost(steps) - target:
            steps -= 1
        self.grad_checkpointing = False
        self.units = CheckpointSequential(*[narrow(steps) for _ in range(3)])
        self.tail = tail(chs)

    def forward(self, x: torch.Tensor, trunk: torch.Tensor) -> torch.Tensor:
        x = self.units(x)
        if self.grad_checkpointing and not torch.jit.is_scripting():
            return recompute(self.tail, x)
        return self.tail(x)
