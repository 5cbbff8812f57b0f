"""Residual units: the building blocks of trunk and mask.

All units share one signature, so that the network, the Attention Module and the mask can be built from any of
them. A unit maps ``(B, in_chs, H, W)`` to ``(B, out_chs, H', W')`` with ``H' = ceil(H / stride)``; every
convolution is bias-free and the stride sits on the 3x3 convolution.

Sources: the authors' published Caffe definitions (Attention-56/92 and AttentionNeXt-56/92) and
"Identity Mappings in Deep Residual Networks", https://arxiv.org/abs/1603.05027 (pre-activation),
"Aggregated Residual Transformations for Deep Neural Networks", https://arxiv.org/abs/1611.05431 (ResNeXt),
"Inception-v4, Inception-ResNet and the Impact of Residual Connections on Learning",
https://arxiv.org/abs/1602.07261 (Inception).
"""

from collections import OrderedDict
from typing import Any, Callable, Dict, Optional, Type, Union

import torch
from timm.layers import DropPath, create_conv2d
from torch import nn

from .fold import fold_norm

__all__ = ["UNITS", "InceptionUnit", "PostActUnit", "PreActUnit"]


def _projection(
    in_chs: int,
    out_chs: int,
    stride: int,
    norm_layer: Optional[Callable[..., nn.Module]],
    device: Any = None,
    dtype: Any = None,
) -> Optional[nn.Sequential]:
    """Shortcut for a changed shape: 1x1 convolution (``conv``), then ``norm`` unless pre-activated; else None."""
    if stride == 1 and in_chs == out_chs:
        return None
    dd = {"device": device, "dtype": dtype}
    layers = OrderedDict(conv=create_conv2d(in_chs, out_chs, 1, stride=stride, **dd))
    if norm_layer is not None:
        layers["norm"] = norm_layer(out_chs, **dd)
    return nn.Sequential(layers)


class PreActUnit(nn.Module):
    """Pre-activation bottleneck of Attention-56 and deeper.

    ``y = shortcut + conv1x1(a3(conv3x3(a2(conv1x1(a1(x))))))`` with ``a = act(norm(.))``. The shortcut is the raw
    input, or, when the shape changes, a 1x1 convolution of the first activation ``a1(x)``.

    Args:
        in_chs: Input channels.
        out_chs: Output channels.
        mid_chs: Channels of the 3x3 convolution.
        stride: Stride of the 3x3 convolution and of the projection.
        dilation: Dilation of the 3x3 convolution.
        groups: Groups of the 3x3 convolution.
        drop_path_rate: Probability that a sample drops the residual branch in training.
        act_layer: Activation, called without arguments.
        norm_layer: Norm, called as ``norm_layer(chs)``.
    """

    preact = True

    def __init__(
        self,
        in_chs: int,
        out_chs: int,
        mid_chs: int,
        stride: int = 1,
        dilation: int = 1,
        groups: int = 1,
        drop_path_rate: float = 0.0,
        *,
        act_layer: Callable[..., nn.Module] = nn.ReLU,
        norm_layer: Callable[..., nn.Module] = nn.BatchNorm2d,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__()
        dd = {"device": device, "dtype": dtype}
        self.downsample = _projection(in_chs, out_chs, stride, None, **dd)
        self.norm1 = norm_layer(in_chs, **dd)
        self.act1 = act_layer()
        self.conv1 = create_conv2d(in_chs, mid_chs, 1, **dd)
        self.norm2 = norm_layer(mid_chs, **dd)
        self.act2 = act_layer()
        self.conv2 = create_conv2d(mid_chs, mid_chs, 3, stride=stride, dilation=dilation, groups=groups, **dd)
        self.norm3 = norm_layer(mid_chs, **dd)
        self.act3 = act_layer()
        self.conv3 = create_conv2d(mid_chs, out_chs, 1, **dd)
        self.drop_path = DropPath(drop_path_rate) if drop_path_rate > 0 else nn.Identity()

    def zero_init_last(self) -> None:
        """Start as the shortcut alone: zero the last convolution."""
        nn.init.zeros_(self.conv3.weight)

    def reparameterize(self) -> None:
        """Fold the two inner norms into the convolutions before them; the first, after a sum, stays."""
        fold_norm(self, "conv1", "norm2")
        fold_norm(self, "conv2", "norm3")

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        preact = self.act1(self.norm1(x))
        shortcut = x
        if self.downsample is not None:
            shortcut = self.downsample(preact)
        x = self.conv1(preact)
        x = self.conv2(self.act2(self.norm2(x)))
        x = self.conv3(self.act3(self.norm3(x)))
        return self.drop_path(x) + shortcut


class PostActUnit(nn.Module):
    """Post-activation bottleneck; with ``groups=32`` the ResNeXt unit of AttentionNeXt-56 and -92.

    ``y = act(shortcut + norm(conv1x1(a2(conv3x3(a1(conv1x1(x)))))))`` with ``a = act(norm(.))``. The shortcut is the
    input, or, when the shape changes, ``norm(conv1x1(x))``.

    Args: as `PreActUnit`.
    """

    preact = False

    def __init__(
        self,
        in_chs: int,
        out_chs: int,
        mid_chs: int,
        stride: int = 1,
        dilation: int = 1,
        groups: int = 1,
        drop_path_rate: float = 0.0,
        *,
        act_layer: Callable[..., nn.Module] = nn.ReLU,
        norm_layer: Callable[..., nn.Module] = nn.BatchNorm2d,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__()
        dd = {"device": device, "dtype": dtype}
        self.downsample = _projection(in_chs, out_chs, stride, norm_layer, **dd)
        self.conv1 = create_conv2d(in_chs, mid_chs, 1, **dd)
        self.norm1 = norm_layer(mid_chs, **dd)
        self.act1 = act_layer()
        self.conv2 = create_conv2d(mid_chs, mid_chs, 3, stride=stride, dilation=dilation, groups=groups, **dd)
        self.norm2 = norm_layer(mid_chs, **dd)
        self.act2 = act_layer()
        self.conv3 = create_conv2d(mid_chs, out_chs, 1, **dd)
        self.norm3 = norm_layer(out_chs, **dd)
        self.drop_path = DropPath(drop_path_rate) if drop_path_rate > 0 else nn.Identity()
        self.act3 = act_layer()

    def zero_init_last(self) -> None:
        """Start as the shortcut alone: zero the scale of the last norm."""
        nn.init.zeros_(self.norm3.get_parameter("weight"))

    def reparameterize(self) -> None:
        """Fold each norm into the convolution before it."""
        for i in (1, 2, 3):
            fold_norm(self, f"conv{i}", f"norm{i}")
        if self.downsample is not None:
            fold_norm(self.downsample, "conv", "norm")

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        shortcut = x
        if self.downsample is not None:
            shortcut = self.downsample(x)
        x = self.act1(self.norm1(self.conv1(x)))
        x = self.act2(self.norm2(self.conv2(x)))
        x = self.norm3(self.conv3(x))
        return self.act3(self.drop_path(x) + shortcut)


class InceptionUnit(nn.Module):
    """Inception-ResNet-style unit of AttentionInception-56.

    Three parallel branches (1x1; 1x1-3x3; 1x1-3x3-3x3 with ``m; m, m; m, 3m/2, 2m`` channels, ``m = mid_chs``,
    the widths of Inception-ResNet-v2's first block), each convolution followed by norm and activation, are
    concatenated, projected by ``norm(conv1x1(.))`` and added to the shortcut; an activation follows, as in
    `PostActUnit`.

    **Deviation:** the paper says only that it "simplifies the Inception" and the authors published no definition:
    this is a reading, sized to come near the published 31.9M parameters: AttentionInception-56 has 32.4M.

    Args: as `PreActUnit`; ``groups`` must be 1.
    """

    preact = False

    def __init__(
        self,
        in_chs: int,
        out_chs: int,
        mid_chs: int,
        stride: int = 1,
        dilation: int = 1,
        groups: int = 1,
        drop_path_rate: float = 0.0,
        *,
        act_layer: Callable[..., nn.Module] = nn.ReLU,
        norm_layer: Callable[..., nn.Module] = nn.BatchNorm2d,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__()
        if groups != 1:
            raise ValueError(f"groups must be 1 with unit_type 'inception', got {groups}.")
        dd = {"device": device, "dtype": dtype}

        def conv_norm_act(in_chs: int, out_chs: int, kernel_size: int, stride: int = 1) -> nn.Sequential:
            conv = create_conv2d(
                in_chs, out_chs, kernel_size, stride=stride, dilation=dilation if kernel_size > 1 else 1, **dd
            )
            return nn.Sequential(OrderedDict(conv=conv, norm=norm_layer(out_chs, **dd), act=act_layer()))

        self.downsample = _projection(in_chs, out_chs, stride, norm_layer, **dd)
        wide_chs = 3 * mid_chs // 2
        self.branch1 = conv_norm_act(in_chs, mid_chs, 1, stride)
        self.branch2 = nn.Sequential(
            conv_norm_act(in_chs, mid_chs, 1),
            conv_norm_act(mid_chs, mid_chs, 3, stride),
        )
        self.branch3 = nn.Sequential(
            conv_norm_act(in_chs, mid_chs, 1),
            conv_norm_act(mid_chs, wide_chs, 3),
            conv_norm_act(wide_chs, 2 * mid_chs, 3, stride),
        )
        self.conv = create_conv2d(4 * mid_chs, out_chs, 1, **dd)
        self.norm = norm_layer(out_chs, **dd)
        self.drop_path = DropPath(drop_path_rate) if drop_path_rate > 0 else nn.Identity()
        self.act = act_layer()

    def zero_init_last(self) -> None:
        """Start as the shortcut alone: zero the scale of the last norm."""
        nn.init.zeros_(self.norm.get_parameter("weight"))

    def reparameterize(self) -> None:
        """Fold each norm into the convolution before it."""
        for pair in (self, self.branch1, *self.branch2, *self.branch3, self.downsample):
            if pair is not None:
                fold_norm(pair, "conv", "norm")

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        shortcut = x
        if self.downsample is not None:
            shortcut = self.downsample(x)
        x = torch.cat([self.branch1(x), self.branch2(x), self.branch3(x)], dim=1)
        x = self.norm(self.conv(x))
        return self.act(self.drop_path(x) + shortcut)


UNITS: Dict[str, Type[Union[PreActUnit, PostActUnit, InceptionUnit]]] = {
    "preact": PreActUnit,
    "postact": PostActUnit,
    "inception": InceptionUnit,
}
