"""The Attention Module: a trunk, a soft mask beside it, and how the two combine.

Section 3 of the paper: ``H = (1 + M(x)) * F(x)`` (attention residual learning, Eq. 3) or ``H = M(x) * T(x)``
(naive attention learning, Eq. 1).
"""

from typing import Callable, Optional

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
        unit: Makes one residual unit that keeps the shape; also takes ``mid_chs``, ``groups`` and ``device``.
        mask: Makes the mask, as ``mask(chs, unit)``, see `SoftMask` and `LocalConvMask`; or None.
        pre_units: Units before the split, and as many after the product (the paper's p).
        trunk_units: Units of the trunk (t).
        attn_residual: Attention residual learning (`True`) or naive attention learning.
    """

    def __init__(
        self,
        chs: int,
        unit: Callable[..., nn.Module],
        mask: Optional[Callable[..., nn.Module]] = None,
        pre_units: int = 1,
        trunk_units: int = 2,
        attn_residual: bool = True,
    ) -> None:
        super().__init__()
        self.attn_residual = attn_residual
        self.grad_checkpointing = False  # read by its parts
        self.pre = CheckpointSequential(*[unit() for _ in range(pre_units)])
        self.trunk = CheckpointSequential(*[unit() for _ in range(trunk_units)])
        self.mask = mask(chs, unit) if mask is not None else None
        self.post = CheckpointSequential(*[unit() for _ in range(pre_units)])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.pre(x)
        trunk = self.trunk(x)
        if self.mask is not None:
            mask = self.mask(x, trunk)
            # addcmul: (1 + M) * T in one pass over memory
            trunk = torch.addcmul(trunk, trunk, mask) if self.attn_residual else trunk * mask
        return self.post(trunk)
