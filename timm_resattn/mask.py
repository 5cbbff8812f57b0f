"""The soft mask branch: where the attention of an Attention Module comes from.

Section 3.2 and Figure 2 of the paper ("bottom-up top-down"): max-pooling gathers the context of the whole map,
bilinear interpolation brings it back to each position, two 1x1 convolutions turn it into mask logits ``z`` and an
activation turns those into the mask ``M``, of the shape of the trunk's output.
"""

from functools import partial
from typing import Any, Callable, Dict

import torch
import torch.nn.functional as F
from timm.layers import create_conv2d
from torch import nn

from .fold import fold_norm, refuse_training

__all__ = ["ATTN_ACTS", "POOL_MODES", "ChannelAttnAct", "LocalConvMask", "SoftMask", "SpatialAttnAct", "pooled_size"]

UnitFn = Callable[[], nn.Module]  # makes one shape-preserving residual unit
RunFn = Callable[[nn.Module, torch.Tensor], torch.Tensor]  # calls a part of the network


class ChannelAttnAct(nn.Module):
    """f2, channel attention (Eq. 5): ``z[i, c] / ||z[i, :]||_2``, without a sigmoid, so it can be negative.

    Shape: ``(B, C, H, W) -> (B, C, H, W)``, unit L2 norm over C at each position i.
    """

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        return F.normalize(z, dim=1)


class SpatialAttnAct(nn.Module):
    """f3, spatial attention (Eq. 6): ``sigmoid((z[i, c] - mean_c) / std_c)`` over the positions i of channel c's map.

    Shape: ``(B, C, H, W) -> (B, C, H, W)`` in (0, 1). **Deviation:** 1e-5 is added to the (biased) variance, so
    that a constant map gives 1/2.
    """

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        var, mean = torch.var_mean(z, dim=(2, 3), unbiased=False, keepdim=True)
        return torch.sigmoid((z - mean) * torch.rsqrt(var + 1e-5))


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
    """Side of a map of side ``size`` (>= 2) behind the max pooling of ``pool_mode``."""
    return (size + 1) // 2 if pool_mode == "pad" else size // 2


def _check_map_size(x: torch.Tensor, least: int, message: str) -> torch.Tensor:
    # a trace records no branch and warns of one
    if not torch.jit.is_tracing() and (x.shape[-2] < least or x.shape[-1] < least):
        raise ValueError(message)
    return x


torch.fx.wrap("_check_map_size")  # a leaf for fx, which can't trace a branch on a shape


class _MaskLevel(nn.Module):
    """One level of the bottom-up top-down pyramid, with all levels below it inside.

    ``D = units(maxpool(x))``; on the lowest level ``y = unit(D)``, above it
    ``y = units(inner(D) + skip(D))``; the result is ``y`` interpolated to the size of ``x``.

    Shape: ``(B, C, H, W) -> (B, C, H, W)``.
    """

    def __init__(
        self, unit_fn: UnitFn, pools: int, mask_units: int, mask_up_units: int, double_skip: bool, pool_mode: str
    ) -> None:
        super().__init__()
        self.double_skip = double_skip
        self.down = nn.Sequential(POOL_MODES[pool_mode](), *[unit_fn() for _ in range(mask_units)])
        lowest = pools == 1
        self.skip = None if lowest else unit_fn()
        self.inner = (
            None if lowest else _MaskLevel(unit_fn, pools - 1, mask_units, mask_up_units, double_skip, pool_mode)
        )
        self.up = nn.Sequential(*[unit_fn() for _ in range(1 if lowest else mask_up_units)])

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


class _MaskTail(nn.Module):
    """From features to the mask: two 1x1 convolutions that keep the width, then the activation.

    Pre-activation trunk: BN-ReLU, conv, BN-ReLU, conv, activation; post-activation trunk: the same without the
    first BN-ReLU.
    """

    def __init__(
        self,
        chs: int,
        attn_act: str,
        preact: bool,
        norm_layer: Callable[..., nn.Module],
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__()
        dd = {"device": device, "dtype": dtype}
        self.norm1 = norm_layer(chs, **dd) if preact else nn.Identity()
        self.conv1 = create_conv2d(chs, chs, 1, **dd)
        self.norm2 = norm_layer(chs, **dd)
        self.conv2 = create_conv2d(chs, chs, 1, **dd)
        self.attn_act = ATTN_ACTS[attn_act]()

    def reparameterize(self) -> None:
        """Fold the inner norm into the convolution in front of it."""
        refuse_training(self)
        fold_norm(self, "conv1", "norm2")

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.conv1(self.norm1(x))
        return self.attn_act(self.conv2(self.norm2(x)))


class SoftMask(nn.Module):
    """The paper's encoder-decoder mask: ``M = act(tail(pyramid(x)))``.

    The pyramid pools ``pools`` times. On its way down each pooling is followed by ``mask_units`` residual units
    (the paper's r), one more unit works on the lowest level; on the way up, at each size except the full one, the
    interpolated map and one unit's view of the same-size map on the way down are added and pass ``mask_up_units``
    units. No skip at full resolution. Maps are interpolated to the size of the map that they meet, never by a fixed
    factor, so any input size works.

    Shape: ``x``, ``trunk`` ``(B, C, H, W) -> (B, C, H, W)``; ``trunk`` is used by ``double_skip`` only.

    Args:
        chs: Channels C.
        unit_fn: Makes one shape-preserving residual unit.
        pools: Number of poolings, at least 1.
        mask_units: Residual units behind each pooling (r).
        mask_up_units: Residual units behind each sum on the way up. **Deviation:** the paper has one network with
            r > 1, Attention-452; its size is met best with one unit here.
        double_skip: Reproduce a misreading that most ports share: each skip also adds the raw map
            (``D + unit(D)``) and the trunk's output is added to the pyramid's.
        attn_act: Key of `ATTN_ACTS`.
        pool_mode: Key of `POOL_MODES`.
        preact: Whether the trunk is pre-activated.
        min_input_size: Least side of the network's input image, for the error message.
        norm_layer: Norm-and-activation layer, called as ``norm_layer(chs)``.
        device: Device of the parameters.
        dtype: Type of the parameters.

    Raises:
        ValueError: In forward, when the map is smaller than the pyramid can hold.
    """

    def __init__(
        self,
        chs: int,
        unit_fn: UnitFn,
        pools: int,
        mask_units: int = 1,
        mask_up_units: int = 1,
        double_skip: bool = False,
        attn_act: str = "mixed",
        pool_mode: str = "pad",
        preact: bool = True,
        min_input_size: int = 1,
        *,
        norm_layer: Callable[..., nn.Module],
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__()
        self.double_skip = double_skip
        self.min_map_size = 2 ** (pools - 1) + 1 if pool_mode == "pad" else 2**pools
        self.size_error = (
            f"Input image too small: this network's masks need at least {min_input_size}x{min_input_size} pixels "
            f"(a {self.min_map_size}x{self.min_map_size} feature map before {pools} poolings)."
        )
        self.pyramid = _MaskLevel(unit_fn, pools, mask_units, mask_up_units, double_skip, pool_mode)
        self.tail = _MaskTail(chs, attn_act, preact, norm_layer, device=device, dtype=dtype)

    def forward(self, x: torch.Tensor, trunk: torch.Tensor) -> torch.Tensor:
        x = _check_map_size(x, self.min_map_size, self.size_error)
        x = self.pyramid(x)
        if self.double_skip:
            x = x + trunk
        return self.tail(x)

    @torch.jit.ignore
    def forward_parts(self, x: torch.Tensor, trunk: torch.Tensor, run: RunFn) -> torch.Tensor:
        """`forward`, pyramid and tail called as ``run(part, x)``, for gradient checkpointing."""
        x = run(self.pyramid, _check_map_size(x, self.min_map_size, self.size_error))
        return run(self.tail, x + trunk if self.double_skip else x)


class LocalConvMask(nn.Module):
    """The control of Table 4: a mask without down- or up-sampling, ``M = act(tail(unit(unit(unit(x)))))``.

    Shape: ``x``, ``trunk`` ``(B, C, H, W) -> (B, C, H, W)``; ``trunk`` is not used.
    """

    def __init__(
        self,
        chs: int,
        unit_fn: UnitFn,
        attn_act: str = "mixed",
        preact: bool = True,
        *,
        norm_layer: Callable[..., nn.Module],
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__()
        self.units = nn.Sequential(*[unit_fn() for _ in range(3)])
        self.tail = _MaskTail(chs, attn_act, preact, norm_layer, device=device, dtype=dtype)

    def forward(self, x: torch.Tensor, trunk: torch.Tensor) -> torch.Tensor:
        return self.tail(self.units(x))

    @torch.jit.ignore
    def forward_parts(self, x: torch.Tensor, trunk: torch.Tensor, run: RunFn) -> torch.Tensor:
        """`forward`, units and tail called as ``run(part, x)``, for gradient checkpointing."""
        for unit in self.units:
            x = run(unit, x)
        return run(self.tail, x)
