"""Precisions beside each other on the weights that ship, and how large values become through depth.

On CIFAR-10's test images: how far bfloat16 and float16, all through and by autocast, are from single precision. On
noise: the largest activation and gradient of the deepest networks with random weights, in evaluation mode with
untouched statistics, in evaluation mode with statistics of such images, and in training mode.
"""

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import timm
import torch
from torch import nn

from benchmarks.cifar.data import load_cifar, normalize
from benchmarks.reliability.tally import Tally

CASES = 1000  # images
# how many in a hundred classes may be others than in single precision, and how far logits may be, by their norm
BOUNDS = {
    "autocast bfloat16": (1.0, 0.05),
    "autocast float16": (0.5, 0.01),
    "bfloat16": (1.5, 0.1),
    "float16": (0.5, 0.02),
}
SHIPPED = ("resattn56_cifar", "resattn92_cifar")
DEEP = {"resattn56": 64, "resattn236": 64, "resattn452": 64, "resattn56_cifar": 32, "resattn452_cifar": 32}
LARGEST = 1e30  # an activation in single precision, whose largest number is 3e38


@torch.inference_mode()
def logits(model: nn.Module, images: torch.Tensor, precision: str) -> torch.Tensor:
    """Logits ``(N, 10)`` in double precision."""
    autocast, _, name = precision.rpartition(" ")
    dtype = getattr(torch, name)
    model = model.to(torch.float32 if autocast else dtype)
    found = []
    for batch in images.split(100):
        with torch.autocast("cpu", dtype) if autocast else nullcontext():
            found.append(model(normalize(batch).to(next(model.parameters()).dtype)).double())
    return torch.cat(found)


def compare(name: str, images: torch.Tensor) -> dict[str, tuple[float, float]]:
    """Of each precision of `BOUNDS`: classes that differ, in percent, and the distance of the logits."""
    exact = logits(timm.create_model(name, pretrained=True).eval(), images, "float32")
    found = {}
    for precision in BOUNDS:
        rounded = logits(timm.create_model(name, pretrained=True).eval(), images, precision)
        others = 100 * (rounded.argmax(1) != exact.argmax(1)).double().mean().item()
        found[precision] = (round(others, 3), round(((rounded - exact).norm() / exact.norm()).item(), 5))
    return found


class Largest:
    """The largest magnitude that any module of a network gives."""

    def __init__(self, model: nn.Module) -> None:
        self.value = 0.0
        self.hooks = [module.register_forward_hook(self._see) for module in model.modules()]

    def _see(self, module: nn.Module, args: Any, output: Any) -> None:
        self.value = max(self.value, output.detach().abs().max().item())

    def __enter__(self) -> "Largest":
        return self

    def __exit__(self, *args: Any) -> None:
        for hook in self.hooks:
            hook.remove()


def magnitudes(name: str, side: int) -> dict[str, float]:
    """Largest activations of a network with random weights, and its largest gradient, on images of noise."""
    torch.manual_seed(0)
    model = timm.create_model(name)
    images = torch.randn(4, 3, side, side)
    found = {}
    with Largest(model.eval()) as largest, torch.no_grad():
        model(images)
    found["untouched"] = largest.value
    with Largest(model.train()) as largest:
        model(images).square().mean().backward()
    found["training"] = largest.value
    found["gradient"] = max(parameter.grad.abs().max().item() for parameter in model.parameters())
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the average over the batches
    with torch.no_grad():
        model(images)
    with Largest(model.eval()) as largest, torch.no_grad():
        model(images)
    found["calibrated"] = largest.value
    return {key: float(f"{value:.3g}") for key, value in found.items()}


def run(tally: Tally, count: int, seed: int, data_dir: Path | None = None) -> dict[str, Any]:
    """Compare on so many images, where there are any, and look at the deepest networks."""
    measured: dict[str, Any] = {"images": 0, "precisions": {}, "largest": {}}
    if data_dir is not None:
        images = load_cifar(data_dir, "test")[0][:count]
        measured["images"] = len(images)
        for name in SHIPPED:
            measured["precisions"][name] = compare(name, images)
            for precision, (others, distance) in measured["precisions"][name].items():
                most, furthest = BOUNDS[precision]
                within = others <= most and distance <= furthest
                why = f"{others}% other classes, logits {distance} apart"
                tally.add(f"{precision} beside float32", "computed" if within else "wrong", name, why)
    for name, side in DEEP.items():
        measured["largest"][name] = found = magnitudes(name, side)
        finite = all(value < LARGEST for value in found.values())  # NaN is not
        tally.add("largest values, random weights", "computed" if finite else "wrong", name, str(found))
    return measured
