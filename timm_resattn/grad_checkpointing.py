"""Gradient checkpointing: parts of the network are recomputed in backward instead of keeping their activations."""

from contextlib import contextmanager, nullcontext
from typing import Any, Iterator, List

import torch
from timm.layers import use_reentrant_ckpt
from timm.models import checkpoint
from torch import nn

__all__ = ["CheckpointSequential", "recompute"]


@contextmanager
def _keep_statistics(module: nn.Module) -> Iterator[None]:
    """Within, training leaves running statistics as they are."""
    norms: List[Any] = [m for m in module.modules() if getattr(m, "track_running_stats", False)]
    kept = [(norm, norm.momentum, norm.num_batches_tracked) for norm in norms]
    for norm in norms:
        norm.momentum, norm.num_batches_tracked = 0.0, None
    try:
        yield
    finally:
        for norm, momentum, num_batches in kept:
            norm.momentum, norm.num_batches_tracked = momentum, num_batches


def recompute(part: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """``part(x)``, called once more in backward, where its norms don't count the batch again."""
    if not torch.is_grad_enabled():
        return part(x)
    if torch.compiler.is_compiling() or use_reentrant_ckpt():
        # compiled code counts it once by itself; reentrant checkpointing knows no context
        return checkpoint(part, x)
    return checkpoint(part, x, context_fn=lambda: (nullcontext(), _keep_statistics(part)))


class CheckpointSequential(nn.Sequential):
    """A sequence of which each child is recomputed in backward, while ``grad_checkpointing`` is set.

    A child that has ``grad_checkpointing`` itself is called as it is and recomputes its own parts.
    """

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.grad_checkpointing = False

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.grad_checkpointing and not torch.jit.is_scripting():
            return self._recompute(x)
        for module in self:
            x = module(x)
        return x

    @torch.jit.ignore
    def _recompute(self, x: torch.Tensor) -> torch.Tensor:
        for module in self:
            x = module(x) if hasattr(module, "grad_checkpointing") else recompute(module, x)
        return x
