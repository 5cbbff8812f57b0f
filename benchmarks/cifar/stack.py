"""Weights of one shape as one parameter: Muon then works on all of them at once, in a tenth of the kernels."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from timm.optim.muon import _is_suitable_for_muon
from torch import nn

Tensors = Sequence[torch.Tensor]


def _matrix(weight: torch.Tensor) -> torch.Tensor:
    """``(O, I, *kernel) -> (O, columns)``, channels last, as the weights lie in memory."""
    return (weight.movedim(1, -1) if weight.ndim > 2 else weight).flatten(1)


def _stack(weights: Tensors) -> torch.Tensor:
    """``(O, columns, N)``, which timm's Muon takes for N matrices if told that these are a kernel's positions."""
    return torch.stack([_matrix(weight) for weight in weights]).movedim(0, -1)


def _chain(weights: Tensors) -> torch.Tensor:
    return torch.cat([weight.flatten() for weight in weights])


def _views(whole: torch.Tensor, weights: Tensors) -> list[torch.Tensor]:
    """The parts of what `_stack` or `_chain` made, in the weights' shapes."""
    if whole.ndim == 1:
        parts = whole.split([weight.numel() for weight in weights])
        return [part.view(weight.shape) for part, weight in zip(parts, weights, strict=True)]
    shape = weights[0].shape
    channels_last = (shape[0], *shape[2:], shape[1]) if len(shape) > 2 else shape
    parts = whole.movedim(-1, 0).view(-1, *channels_last)
    return list(parts.movedim(-1, 2) if len(shape) > 2 else parts)


def stack_parameters(optimizer: torch.optim.Optimizer) -> None:
    """Let timm's Muon take steps of stacked weights, the same as before but for rounding.

    The model's parameters stay and become views of what the optimiser holds: one parameter for the weights of each
    shape, and one for all that AdamW takes. It takes their gradients when it steps and leaves none.
    """
    stacks: list[tuple[nn.Parameter, list[nn.Parameter], Callable[[Tensors], torch.Tensor]]] = []
    groups: list[dict[str, Any]] = []
    for group in optimizer.param_groups:
        shapes: dict[torch.Size, list[nn.Parameter]] = {}
        rest = []
        for weight in group["params"]:
            (shapes.setdefault(weight.shape, []) if _is_suitable_for_muon(weight) else rest).append(weight)
        for parts, make, told in (
            ([*shapes.values()], _stack, {"use_muon": True, "conv_mode": "batched", "normalize_spatial": False}),
            ([rest] if rest else [], _chain, {"use_fallback": True}),
        ):
            made = [(nn.Parameter(make([weight.detach() for weight in part])), part, make) for part in parts]
            stacks += made
            if made:
                groups.append({**group, **told, "params": [parameter for parameter, _, _ in made]})
    for parameter, part, _ in stacks:
        for weight, view in zip(part, _views(parameter.detach(), part), strict=True):
            weight.data = view
    optimizer.param_groups.clear()
    for group in groups:
        optimizer.add_param_group(group)

    def take(*_: Any) -> None:
        for parameter, part, make in stacks:
            parameter.grad = make([weight.grad for weight in part])

    def leave(*_: Any) -> None:
        for parameter, part, _ in stacks:
            for tensor in (parameter, *part):
                tensor.grad = None

    optimizer.register_step_pre_hook(take)
    optimizer.register_step_post_hook(leave)
