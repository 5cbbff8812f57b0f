"""Dead channels: where a ReLU lets nothing through, no gradient comes back, and training can't mend it."""

import torch
from torch import nn


@torch.inference_mode()
def dead_share(model: nn.Module, images: torch.Tensor) -> float:
    """Share of the channels after a ReLU that are zero at every position of every image, in evaluation mode.

    The model's mode, its running statistics and the random generators are left as they were.

    Args:
        model: A network whose ReLUs are modules.
        images: One batch of its input, ``(N, C, H, W)``.
    """
    dead: list[torch.Tensor] = []  # one a call, since a ReLU may be called in several places
    handles = [
        module.register_forward_hook(lambda _, __, out: dead.append(~(out > 0).transpose(0, 1).flatten(1).any(1)))
        for module in model.modules()
        if isinstance(module, nn.ReLU)
    ]
    training = model.training
    try:
        model.eval()(images)
    finally:
        model.train(training)
        for handle in handles:
            handle.remove()
    return torch.cat(dead).float().mean().item()
