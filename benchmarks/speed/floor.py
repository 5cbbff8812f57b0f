"""The floor of a network's time: its convolutions alone."""

import torch
from torch import nn


class ConvFloor:
    """Runs only the convolutions of ``model(images)``, in their order, each on the input that it had there.

    Everything else that a network does (norms, activations, pooling, interpolation, sums, the classifier) is left out:
    without better convolution kernels, or work fused into them, no framework runs the network in less.

    Args:
        model: The network; its layout and type are those of the replay.
        images: A batch for it.

    Attributes:
        calls: Each convolution with its input.
    """

    def __init__(self, model: nn.Module, images: torch.Tensor) -> None:
        self.calls: list[tuple[nn.Conv2d, torch.Tensor]] = []

        def record(module: nn.Module, args: tuple[torch.Tensor, ...]) -> None:
            assert isinstance(module, nn.Conv2d)
            self.calls.append((module, args[0].detach()))

        convs = [module for module in model.modules() if isinstance(module, nn.Conv2d)]
        hooks = [conv.register_forward_pre_hook(record) for conv in convs]
        try:
            with torch.no_grad():
                model(images)
        finally:
            for hook in hooks:
                hook.remove()

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        """Run the convolutions; ``images`` are not looked at. Returns the last one's output."""
        out = images
        for conv, x in self.calls:
            out = conv(x)
        return out
