"""Dead channels: where a norm's ReLU lets nothing through, no gradient comes back, and a training run can't mend it.

A large learning rate on norms makes them (`Recipe.fallback_lr_scale`). `revive` gives them another start without
changing what the network computes.
"""

from collections.abc import Iterator

import torch
from torch import nn


def _norms(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Norms with weight and bias that a ReLU follows in the same layer, as timm's ``BatchNormAct2d``."""
    for name, module in model.named_modules():
        if isinstance(getattr(module, "act", None), nn.ReLU) and getattr(module, "weight", None) is not None:
            yield name, module


@torch.no_grad()
def dead_channels(
    model: nn.Module, images: torch.Tensor, batch_size: int = 250
) -> tuple[dict[str, torch.Tensor], dict[str, list[str]]]:
    """Channels of each norm that are zero at every position of every image, and who reads the norm.

    Args:
        model: A network; it is put into evaluation mode.
        images: Its input, ``(N, 3, H, W)``.
        batch_size: Images at a time.

    Returns:
        By the norm's name: a mask ``(C,)``, true for dead channels; and the names of the convolutions that take the
        norm's output as it is.
    """
    model.eval()
    norms = dict(_norms(model))
    alive = {name: torch.zeros_like(norm.weight, dtype=torch.bool) for name, norm in norms.items()}
    readers: dict[str, list[str]] = {name: [] for name in norms}
    outputs: list[tuple[str, torch.Tensor]] = []  # of one batch; holding them keeps each object's identity its own

    def note(name: str, out: torch.Tensor) -> None:
        outputs.append((name, out))
        alive[name] |= (out > 0).flatten(2).any(2).any(0)

    def reads(name: str, given: torch.Tensor) -> None:
        for norm, out in outputs:
            if out is given and name not in readers[norm]:
                readers[norm].append(name)

    handles = [
        norm.register_forward_hook(lambda _, __, out, name=name: note(name, out)) for name, norm in norms.items()
    ] + [
        module.register_forward_pre_hook(lambda _, args, name=name: reads(name, args[0]))
        for name, module in model.named_modules()
        if isinstance(module, nn.Conv2d)
    ]
    try:
        for batch in images.split(batch_size):
            outputs.clear()
            model(batch)
    finally:
        for handle in handles:
            handle.remove()
    return {name: ~mask for name, mask in alive.items()}, readers


@torch.no_grad()
def revive(model: nn.Module, images: torch.Tensor) -> dict[str, int]:
    """Make dead channels live ones that nobody listens to yet: the network computes the same, and can learn of them.

    Norm weight 1 and bias 0 for each channel that is dead on the images, and zeros where its readers take it: those
    get a gradient at once, the rest from the second step on. A norm with a reader that is no convolution is left
    alone, but for the last one, which the classifier reads behind the mean.

    Args:
        model: The network to change, of the CIFAR family; it is put into evaluation mode.
        images: Its input, ``(N, 3, H, W)``; what is dead on them should be so on all, or the function changes.

    Returns:
        ``channels`` and how many of them were ``dead`` and are ``revived``.
    """
    dead, readers = dead_channels(model, images)
    modules = dict(model.named_modules())
    revived = 0
    for name, mask in dead.items():
        weights = [modules[reader].weight for reader in readers[name] if modules[reader].groups == 1]
        if name == "norm" and isinstance(modules.get("head.fc"), nn.Linear):
            weights.append(modules["head.fc"].weight)
        if not weights or not mask.any():
            continue
        for weight in weights:
            weight[:, mask] = 0.0
        modules[name].weight[mask] = 1.0
        modules[name].bias[mask] = 0.0
        revived += int(mask.sum())
    counts = [int(mask.sum()) for mask in dead.values()]
    return {"channels": sum(len(mask) for mask in dead.values()), "dead": sum(counts), "revived": revived}
