"""The Attention Module: a trunk, a soft mask beside it, and how the two combine.

Section 3 of the paper: ``H = (1 + M(x)) * F(x)`` (attention residual learning, Eq. 3) or ``H = M(x) * T(x)``
(naive attention learning, Eq. 1).
"""

from bisect import bisect_left
from functools import partial
from typing import Any, Callable, Dict, Optional, Union

import torch
from torch import nn

from .mask import LocalConvMask, RunFn, SoftMask

__all__ = ["MASK_TYPES", "AttentionModule"]

MASK_TYPES = ("encoder_decoder", "local_conv", "none")


def _conv_weights(module: nn.Module) -> int:
    """Convolution weights of a module, which are its multiply-accumulates per position at stride 1."""
    return sum(m.weight.numel() for m in module.modules() if isinstance(m, nn.Conv2d))


def _local_conv_unit(
    unit: Callable[..., nn.Module],
    mid_chs: int,
    groups: int,
    pools: int,
    mask_units: int,
    mask_up_units: int,
) -> Callable[..., nn.Module]:
    """``unit`` narrowed so that three of them cost what the encoder-decoder's units cost at the same map size.

    Each pooling quarters the cost of what follows. Of the widths that keep the channels per group the smallest is
    taken that costs no less than the encoder-decoder, or the one below if that is nearer.
    """
    units_at_level = [mask_units + 1 + mask_up_units] * (pools - 1) + [mask_units + 1]
    budget = sum(units / 4**level for level, units in enumerate(units_at_level, start=1))
    full_cost = _conv_weights(unit(mid_chs=mid_chs, groups=groups, device="meta"))
    target = full_cost * budget / 3

    group_width = mid_chs // groups if groups > 1 else 1

    def narrowed(steps: int) -> Callable[..., nn.Module]:
        return partial(unit, mid_chs=steps * group_width, groups=steps if groups > 1 else 1)

    def cost(steps: int) -> int:
        return _conv_weights(narrowed(steps)(device="meta"))

    steps = bisect_left(range(1, 4 * mid_chs // group_width), target, key=cost) + 1
    if steps > 1 and target - cost(steps - 1) < cost(steps) - target:
        steps -= 1
    return narrowed(steps)


class AttentionModule(nn.Module):
    """One Attention Module: ``x1 = pre(x)``; ``T = trunk(x1)``; ``M = mask(x1)``; ``H``; ``post(H)``.

    ``H = (1 + M) * T`` with ``attn_residual``, else ``H = M * T``; without a mask ``H = T``, which leaves the bare
    residual network.

    Shape: ``(B, C, H, W) -> (B, C, H, W)``.

    Args:
        chs: Channels C.
        unit: Makes one shape-preserving residual unit; takes ``mid_chs``, ``groups``, ``device`` as overrides.
        mid_chs: Channels of the units' 3x3 convolution.
        groups: Groups of the units' 3x3 convolution.
        preact: Whether the units are pre-activated.
        pre_units: Units in front of the split and units behind the product (the paper's p).
        trunk_units: Units of the trunk (t).
        mask_units: Mask units behind each pooling (r).
        mask_up_units: Mask units behind each sum on the way up.
        mask_type: One of `MASK_TYPES`.
        mask_pools: Number of poolings in the mask.
        double_skip: See `SoftMask`.
        attn_act: Activation of the mask, see `ATTN_ACTS`.
        attn_residual: Attention residual learning (`True`) or naive attention learning.
        pool_mode: See `POOL_MODES`.
        min_input_size: Least side of the network's input image, for the error message.
        norm_layer: Norm-and-activation layer, called as ``norm_layer(chs)``.
        device: Device of the parameters.
        dtype: Type of the parameters.
    """

    def __init__(
        self,
        chs: int,
        unit: Callable[..., nn.Module],
        mid_chs: int,
        groups: int = 1,
        preact: bool = True,
        pre_units: int = 1,
        trunk_units: int = 2,
        mask_units: int = 1,
        mask_up_units: int = 1,
        mask_type: str = "encoder_decoder",
        mask_pools: int = 1,
        double_skip: bool = False,
        attn_act: str = "mixed",
        attn_residual: bool = True,
        pool_mode: str = "pad",
        min_input_size: int = 1,
        *,
        norm_layer: Callable[..., nn.Module],
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__()
        self.attn_residual = attn_residual
        unit_fn = partial(unit, mid_chs=mid_chs, groups=groups)
        tail_args: Dict[str, Any] = dict(
            attn_act=attn_act, preact=preact, norm_layer=norm_layer, device=device, dtype=dtype
        )
        mask: Optional[Union[SoftMask, LocalConvMask]] = None
        if mask_type == "encoder_decoder":
            mask = SoftMask(
                chs,
                unit_fn,
                mask_pools,
                mask_units,
                mask_up_units,
                double_skip=double_skip,
                pool_mode=pool_mode,
                min_input_size=min_input_size,
                **tail_args,
            )
        elif mask_type == "local_conv":
            narrow_fn = _local_conv_unit(unit, mid_chs, groups, mask_pools, mask_units, mask_up_units)
            mask = LocalConvMask(chs, narrow_fn, **tail_args)

        self.pre = nn.Sequential(*[unit_fn() for _ in range(pre_units)])
        self.trunk = nn.Sequential(*[unit_fn() for _ in range(trunk_units)])
        self.mask = mask
        self.post = nn.Sequential(*[unit_fn() for _ in range(pre_units)])

    def gate(self, trunk: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """The mask's product with the trunk, in one pass over memory: ``(1 + M) * T`` or ``M * T``."""
        return torch.addcmul(trunk, trunk, mask) if self.attn_residual else trunk * mask

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.pre(x)
        trunk = self.trunk(x)
        if self.mask is not None:
            trunk = self.gate(trunk, self.mask(x, trunk))
        return self.post(trunk)

    @torch.jit.ignore
    def forward_parts(self, x: torch.Tensor, run: RunFn) -> torch.Tensor:
        """`forward`, each residual unit, the mask's pyramid and its tail called as ``run(part, x)``."""
        for unit in self.pre:
            x = run(unit, x)
        trunk = x
        for unit in self.trunk:
            trunk = run(unit, trunk)
        if self.mask is not None:
            trunk = self.gate(trunk, self.mask.forward_parts(x, trunk, run))
        for unit in self.post:
            trunk = run(unit, trunk)
        return trunk
