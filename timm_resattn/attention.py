"""The Attention Module: a trunk, a soft mask beside it, and how the two combine.

Section 3 of the paper: ``H = (1 + M(x)) * F(x)`` (attention residual learning, Eq. 3) or ``H = M(x) * T(x)``
(naive attention learning, Eq. 1).
"""

from functools import partial
from typing import Callable, Optional, Sequence

import torch
from torch import nn

from .grad_checkpointing import CheckpointSequential

__all__ = ["AttentionModule"]


class AttentionModule(nn.Module):
    """One Attention Module: ``x1 = pre(x)``; ``T = trunk(x1)``; ``M = mask(x1, T)``; ``H``; ``post(H)``.

    ``H = (1 + M) * T`` with ``attn_residual``, else ``H = M * T``; without a mask ``H = T``, which leaves the bare
    residual network.

    Shape: ``(B, C, H, W) -> (B, C, H, W)``.

    Args:
        chs: Channels C.
        unit: Makes one residual unit that keeps the shape; also takes ``drop_path_rate``, ``mid_chs``, ``groups`` and
            ``device``.
        mask: Makes the mask, as ``mask(chs, unit)``, see `SoftMask` and `LocalConvMask`; or None.
        pre_units: Units before the split, and as many after the product (the paper's p).
        trunk_units: Units of the trunk (t).
        attn_residual: Attention residual learning (`True`) or naive attention learning.
        drop_path_rates: Stochastic depth of each unit, in the order in which they run; the mask's units take that of
            the last one of the trunk. None: 0.
    """

    def __init__(
        self,
        chs: int,
        unit: Callable[..., nn.Module],
        mask: Optional[Callable[..., nn.Module]] = None,
        pre_units: int = 1,
        trunk_units: int = 2,
        attn_residual: bool = True,
        drop_path_rates: Optional[Sequence[float]] = None,
    ) -> None:
        super().__init__()
        self.attn_residual = attn_residual
        self.grad_checkpointing = False  # read by its parts
        rates = drop_path_rates or [0.0] * (2 * pre_units + trunk_units)
        split = pre_units + trunk_units

        def units(rates: Sequence[float]) -> CheckpointSequential:
            return CheckpointSequential(*[unit(drop_path_rate=rate) for rate in rates])

        self.pre = units(rates[:pre_units])
        self.trunk = units(rates[pre_units:split])
        self.mask = mask(chs, partial(unit, drop_path_rate=max(rates[:split], default=0.0))) if mask else None
        self.post = units(rates[split:])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.pre(x)
        trunk = self.trunk(x)
        if self.mask is not None:
            mask = self.mask(x, trunk)
            # addcmul: (1 + M) * T in one pass over memory
            trunk = torch.addcmul(trunk, trunk, mask) if self.attn_residual else trunk * mask
        return self.post(trunk)
