"""Inference on a CPU in few passes over memory: residual units and masks on oneDNN's fused convolutions.

Each class here computes what its namesake in `units`, `mask` or `attention` computes in evaluation mode with folded
norms (`fold`), with these differences: activations and residual sums are part of the convolutions; a unit adds onto its
input, in place, wherever nothing else reads that; the mask comes before the trunk, so that the trunk may, too; weights
are kept in oneDNN's own layout. The operators are those that torch.compile generates for a CPU, called directly. They
know no gradients.
"""

from typing import Any, Dict, Tuple

import torch
import torch.nn.functional as F
from timm.layers import BatchNormAct2d
from torch import nn

from .attention import AttentionModule
from .fold import fold_norm
from .mask import LocalConvMask, SoftMask, _check_map_size, _MaskLevel, _MaskTail
from .resattn import ResAttn, ResAttnStage, Stem
from .units import InceptionUnit, PostActUnit, PreActUnit

__all__ = ["FUSED_DTYPES", "can_fuse", "fuse"]

FUSED_DTYPES = (torch.float32, torch.bfloat16)

_ACTS = {nn.Identity: "none", nn.ReLU: "relu", nn.Sigmoid: "sigmoid"}  # oneDNN's names


def can_fuse(dtype: torch.dtype) -> bool:
    """Whether this build of torch and this CPU have the fused convolutions for ``dtype``."""
    if dtype not in FUSED_DTYPES or not torch.backends.mkldnn.is_available():
        return False
    if not hasattr(torch.ops.mkldnn, "_convolution_pointwise_"):
        return False
    return dtype == torch.float32 or torch.ops.mkldnn._is_mkldnn_bf16_supported()


class FusedConv2d(nn.Module):
    """A convolution with the activation behind it, if oneDNN has that, and optionally a sum in between.

    Args:
        conv: The convolution.
        act: What follows: an activation, or anything else, which then runs as it is.
    """

    def __init__(self, conv: Any, act: Any = None) -> None:
        super().__init__()
        self.weight, self.bias = conv.weight, conv.bias
        self.window: Tuple[Any, ...] = (conv.padding, conv.stride, conv.dilation, conv.groups)
        act = act or nn.Identity()
        self.attr = _ACTS.get(type(act), "none")
        self.act = nn.Identity() if type(act) in _ACTS else act
        self.packed: Dict[Tuple[bool, int, int, int], torch.Tensor] = {}

    def _pack(self, x: torch.Tensor) -> torch.Tensor:
        """The weight in the layout that oneDNN prefers for inputs like ``x``."""
        key = (x.shape[0] == 1, x.shape[2], x.shape[3], self.weight._version)
        weight = self.packed.get(key)
        if weight is None:
            reorder: Any = torch._C._nn.mkldnn_reorder_conv2d_weight
            weight = reorder(self.weight.detach().to_mkldnn(), *self.window, x.shape)
            if len(self.packed) == 2:  # one shape of single images and one of batches
                del self.packed[next(iter(self.packed))]
            self.packed[key] = weight
        return weight

    def __getstate__(self) -> Dict[str, Any]:
        return {**self.__dict__, "packed": {}}  # packed weights can be neither copied nor saved

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``act(conv(x))``."""
        weight = self._pack(x)
        return self.act(torch.ops.mkldnn._convolution_pointwise(x, weight, self.bias, *self.window, self.attr, [], ""))

    def add_to(self, other: torch.Tensor, x: torch.Tensor, in_place: bool) -> torch.Tensor:
        """``act(conv(x) + other)``, written over ``other`` if ``in_place``."""
        attr = None if self.attr == "none" else self.attr
        args = (self._pack(x), self.bias, *self.window, "add", 1.0, attr, [], None)
        if in_place:
            return self.act(torch.ops.mkldnn._convolution_pointwise_.binary(other, x, *args))
        return self.act(torch.ops.mkldnn._convolution_pointwise.binary(x, other, *args))


class FusedNormAct(nn.Module):
    """A batch norm as multiplication and addition, and the activation behind it, in place.

    In bfloat16 both are one pass: a depthwise 1x1 convolution. oneDNN's kernel for that goes through memory in order
    only if a map is one row high, so rows count as images. In single precision two passes were faster than that one.

    Args:
        norm: A `BatchNormAct2d` with running statistics and an activation that oneDNN has.
    """

    def __init__(self, norm: Any) -> None:
        super().__init__()
        chs, dtype = norm.num_features, norm.running_mean.dtype
        layers: Any = nn.Module()
        layers.norm = norm
        layers.conv = nn.Conv2d(chs, chs, 1, groups=chs, bias=False, device=norm.running_mean.device, dtype=dtype)
        layers.conv.requires_grad_(False).weight.fill_(1.0)
        fold_norm(layers, "conv", "norm")
        self.one_pass = dtype == torch.bfloat16
        if self.one_pass:
            self.conv = FusedConv2d(layers.conv, layers.norm)
        else:
            self.scale = nn.Parameter(layers.conv.weight.view(1, -1, 1, 1), requires_grad=False)
            self.shift = nn.Parameter(layers.conv.bias.view(1, -1, 1, 1), requires_grad=False)
            self.act = layers.norm

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if not self.one_pass:
            return self.act(torch.addcmul(self.shift, x, self.scale))
        batch, chs, height, width = x.shape
        rows = x.permute(0, 2, 3, 1).reshape(batch * height, 1, width, chs).permute(0, 3, 1, 2)
        return self.conv(rows).permute(0, 2, 3, 1).view(batch, height, width, chs).permute(0, 3, 1, 2)


def _norm_act(norm: nn.Module) -> nn.Module:
    """The norm in that form if it is of the usual kind, else as it is."""
    usual = type(norm) is BatchNormAct2d and type(norm.act) in _ACTS and norm.running_mean is not None
    return FusedNormAct(norm) if usual else norm


class FusedPreActUnit(nn.Module):
    """`PreActUnit`; writes over its input if ``overwrite`` and it has no projection."""

    def __init__(self, unit: PreActUnit) -> None:
        super().__init__()
        self.overwrite = True
        projection: Any = unit.downsample
        self.downsample = None if projection is None else FusedConv2d(projection.conv)
        self.norm1 = _norm_act(unit.norm1)
        self.conv1 = FusedConv2d(unit.conv1, unit.norm2)
        self.conv2 = FusedConv2d(unit.conv2, unit.norm3)
        self.conv3 = FusedConv2d(unit.conv3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        preact = self.norm1(x)
        if self.downsample is not None:
            x = self.downsample(preact)
        return self.conv3.add_to(x, self.conv2(self.conv1(preact)), self.overwrite or self.downsample is not None)


class _FusedPostAct(nn.Module):
    """What the post-activation units share: ``act(shortcut + residual)``."""

    def __init__(self, downsample: Any, conv: nn.Conv2d, norm: nn.Module, act: nn.Module) -> None:
        super().__init__()
        self.overwrite = True
        self.downsample = None if downsample is None else FusedConv2d(downsample.conv, downsample.norm)
        self.is_folded = isinstance(norm, nn.Identity)
        self.conv = FusedConv2d(conv, act if self.is_folded else norm)
        self.act = nn.Identity() if self.is_folded else act

    def join(self, shortcut: torch.Tensor, residual: torch.Tensor) -> torch.Tensor:
        """``act(shortcut + norm(conv(residual)))``."""
        if self.downsample is not None:
            shortcut = self.downsample(shortcut)
        if not self.is_folded:  # a norm between convolution and sum
            return self.act(self.conv(residual) + shortcut)
        return self.conv.add_to(shortcut, residual, self.overwrite or self.downsample is not None)


class FusedPostActUnit(_FusedPostAct):
    """`PostActUnit`; writes over its input if ``overwrite`` and it has no projection."""

    def __init__(self, unit: PostActUnit) -> None:
        super().__init__(unit.downsample, unit.conv3, unit.norm3, unit.act3)
        self.conv1 = FusedConv2d(unit.conv1, unit.norm1)
        self.conv2 = FusedConv2d(unit.conv2, unit.norm2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.join(x, self.conv2(self.conv1(x)))


class FusedInceptionUnit(_FusedPostAct):
    """`InceptionUnit`; writes over its input if ``overwrite`` and it has no projection."""

    def __init__(self, unit: InceptionUnit) -> None:
        super().__init__(unit.downsample, unit.conv, unit.norm, unit.act)
        branches: Any = ((unit.branch1,), unit.branch2, unit.branch3)
        self.branches = nn.ModuleList(
            nn.Sequential(*[FusedConv2d(pair.conv, pair.norm) for pair in pairs]) for pairs in branches
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.join(x, torch.cat([branch(x) for branch in self.branches], dim=1))


class FusedMaskTail(nn.Module):
    """The mask's last convolutions and its activation."""

    def __init__(self, tail: _MaskTail) -> None:
        super().__init__()
        self.norm1 = _norm_act(tail.norm1)
        self.conv1 = FusedConv2d(tail.conv1, tail.norm2)
        self.conv2 = FusedConv2d(tail.conv2, tail.attn_act)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.conv2(self.conv1(self.norm1(x)))


class FusedMaskLevel(nn.Module):
    """One level of the pyramid with all below it; leaves its input alone."""

    def __init__(self, level: _MaskLevel) -> None:
        super().__init__()
        self.double_skip = level.double_skip
        self.down, self.up = fuse(level.down), fuse(level.up)
        self.inner = None if level.inner is None else fuse(level.inner)
        self.skip = None if level.skip is None else fuse(level.skip)
        if self.double_skip and self.skip is not None:
            self.skip.overwrite = False

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.down(x)
        if self.inner is not None and self.skip is not None:
            inner = self.inner(y)
            skip = self.skip(y)
            if self.double_skip:
                skip += y
            y = skip.add_(inner)
        return F.interpolate(self.up(y), size=x.shape[-2:], mode="bilinear", align_corners=True)


class FusedAttentionModule(nn.Module):
    """`AttentionModule`, the mask before the trunk, which then may write over what both read."""

    def __init__(self, module: AttentionModule) -> None:
        super().__init__()
        self.attn_residual = module.attn_residual
        self.pre, self.trunk, self.post = fuse(module.pre), fuse(module.trunk), fuse(module.post)
        mask = module.mask
        self.pyramid: Any = None
        self.tail: Any = None
        self.double_skip = False
        self.least, self.size_error = 0, ""
        if isinstance(mask, SoftMask):
            self.double_skip = mask.double_skip
            self.least, self.size_error = mask.min_map_size, mask.size_error
            self.pyramid, self.tail = fuse(mask.pyramid), fuse(mask.tail)
        elif isinstance(mask, LocalConvMask):
            self.pyramid, self.tail = fuse(mask.units), fuse(mask.tail)
            self.pyramid[0].overwrite = False

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.pre(x)
        if self.pyramid is None or self.tail is None:
            return self.post(self.trunk(x))
        mask = self.pyramid(_check_map_size(x, self.least, self.size_error))
        if self.double_skip:
            trunk = self.trunk(x)
            mask = self.tail(mask.add_(trunk))
        else:
            mask = self.tail(mask)
            trunk = self.trunk(x)
        return self.post(trunk.addcmul_(trunk, mask) if self.attn_residual else trunk.mul_(mask))


_FUSED: Dict[type, Any] = {
    PreActUnit: FusedPreActUnit,
    PostActUnit: FusedPostActUnit,
    InceptionUnit: FusedInceptionUnit,
    _MaskTail: FusedMaskTail,
    _MaskLevel: FusedMaskLevel,
    AttentionModule: FusedAttentionModule,
}


def fuse(module: Any) -> Any:
    """The module with all that this file has a fused form of replaced by it: itself changed, or a new one.

    Args:
        module: A network, or a part of one, in evaluation mode, with folded norms, in channels_last; its feature
            maps at strides may be kept by a caller, nothing inside a stage may.
    """
    if type(module) in _FUSED:
        return _FUSED[type(module)](module)
    for name, child in module.named_children():
        setattr(module, name, fuse(child))
    if isinstance(module, ResAttnStage):
        first: Any = module.blocks[0]
        first.overwrite = False  # it reads the map of the stage before, which the caller may hold
    elif isinstance(module, Stem) and hasattr(module, "norm"):
        module.conv, module.norm = FusedConv2d(module.conv, module.norm), nn.Identity()
    elif isinstance(module, ResAttn):
        module.norm = _norm_act(module.norm)
    return module
