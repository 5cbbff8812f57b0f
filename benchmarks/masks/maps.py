"""Candidates: maps ``(B, h, w)`` of a mask, higher where it should matter more, and baselines: no value of a mask."""

from collections.abc import Callable, Iterator

import torch
from torch import nn

from timm_resattn import capture_masks, record_attention, reduce_mask

# of mask M, gradient g = dy/dM and reference mean R, each (B, C, h, w)
OF_MASK: dict[str, Callable[[torch.Tensor, torch.Tensor], torch.Tensor]] = {
    "mean": lambda mask, _: reduce_mask(mask, "mean"),
    "varied": lambda mask, _: reduce_mask(mask, "varied"),
    "pca, first": lambda mask, _: reduce_mask(mask, "pca")[..., 0],
    "deviation from the positional mean": lambda mask, reference: (mask - reference).norm(dim=1),
}
OF_CLASS: dict[str, Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]] = {
    "mask x gradient": lambda mask, grad, _: (mask * grad).sum(1),
    "mask x gradient, positive part": lambda mask, grad, _: (mask * grad).clamp(min=0).sum(1),
    "deviation x gradient, positive part": lambda mask, grad, reference: (
        ((mask - reference) * grad).clamp(min=0).sum(1)
    ),
    "gradient": lambda _, grad, __: grad.sum(1),
    "gradient, positive part": lambda _, grad, __: grad.clamp(min=0).sum(1),
}
BASELINES = ("random", "centre", "input gradient", "gradient", "gradient, positive part")


def reference_means(model: nn.Module, images: torch.Tensor) -> dict[str, torch.Tensor]:
    """Mean mask ``(1, C, h, w)`` of each module over images."""
    sums: dict[str, torch.Tensor] = {}
    with torch.inference_mode():
        for batch in images.split(100):
            with capture_masks(model) as masks:
                model(batch)
            for name, mask in masks.items():
                sums[name] = sums.get(name, 0) + mask.sum(0, keepdim=True)
    return {name: total / len(images) for name, total in sums.items()}


def baselines(
    model: nn.Module, images: torch.Tensor, classes: torch.Tensor, seed: int
) -> Iterator[tuple[str, str, torch.Tensor]]:
    """Rankings that know no mask, each with an empty module name."""
    height, width = images.shape[2:]
    generator = torch.Generator().manual_seed(seed)
    yield "random", "", torch.rand(len(images), height, width, generator=generator)
    rows, columns = torch.arange(height) - (height - 1) / 2, torch.arange(width) - (width - 1) / 2
    distance = (rows[:, None] / height).square() + (columns / width).square()
    yield "centre", "", -distance.expand(len(images), -1, -1)
    x = images.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(model(x).gather(1, classes[:, None]).sum(), x)
    yield "input gradient", "", gradient.abs().sum(1)


def maps(
    model: nn.Module, images: torch.Tensor, classes: torch.Tensor, reference: dict[str, torch.Tensor]
) -> Iterator[tuple[str, str, torch.Tensor]]:
    """Candidate, module and map; those of the class are of its logit."""
    record = record_attention(model, images, classes)
    for module, mask in record.masks.items():
        for name, reduce in OF_MASK.items():
            yield name, module, reduce(mask, reference[module])
        for name, reduce_class in OF_CLASS.items():
            yield name, module, reduce_class(mask, record.gradients[module], reference[module])
