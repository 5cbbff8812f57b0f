"""Dead channels: where a ReLU lets nothing through, no gradient comes back, and training can't mend it."""

import torch
from torch import nn


@torch.inference_mode()
def dead_channels(model: nn.Module, images: torch.Tensor) -> dict[str, torch.Tensor]:
    """Channels after each ReLU that are zero at every position of every image, in evaluation mode.

    The model's mode, its running statistics and the random generators are left as they were.

    Args:
        model: A network whose ReLUs are modules.
        images: One batch of its input, ``(N, C, H, W)``.

    Returns:
        A mask ``(C,)``, true for dead channels, by the ReLU's name and the number of its call.
    """
    dead: dict[str, torch.Tensor] = {}

    def note(name: str, out: torch.Tensor) -> None:
        calls = sum(key.rpartition(":")[0] == name for key in dead)
        dead[f"{name}:{calls}"] = ~(out > 0).transpose(0, 1).flatten(1).any(1)

    handles = [
        module.register_forward_hook(lambda _, __, out, name=name: note(name, out))
        for name, module in model.named_modules()
        if isinstance(module, nn.ReLU)
    ]
    training = model.training
    try:
        model.eval()(images)
    finally:
        model.train(training)
        for handle in handles:
            handle.remove()
    return dead


def dead_share(model: nn.Module, images: torch.Tensor) -> float:
    """Share of the channels that `dead_channels` finds."""
    return torch.cat(list(dead_channels(model, images).values())).float().mean().item()
