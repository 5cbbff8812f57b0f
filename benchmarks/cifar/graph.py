"""An update as a CUDA graph: its thousands of small kernels are launched at once, and not one by one by Python."""

from collections.abc import Callable
from typing import Any

import torch

WARM_UP = 3  # updates of a new shape before it is captured: cuDNN chooses its kernels, the optimiser makes its state

Update = Callable[..., tuple[torch.Tensor, ...]]


class GraphedUpdate:
    """Does what ``update`` does, by replay from the fourth call with the same shapes on.

    Args:
        update: Takes tensors, or None, steps the optimiser, leaves no gradients and returns tensors; nothing in it
            waits for the device. What it returns stays the same memory from replay to replay.
        optimizer: Made with ``capturable``. Its learning rates may change between calls, nothing else.
    """

    def __init__(self, update: Update, optimizer: torch.optim.Optimizer) -> None:
        self.update, self.optimizer = update, optimizer
        self.stream = torch.cuda.Stream()
        self.shapes: list[torch.Size | None] = []
        self.calls = 0
        self.graph: torch.cuda.CUDAGraph | None = None

    def __call__(self, *inputs: torch.Tensor | None) -> tuple[torch.Tensor, ...]:
        shapes = [None if tensor is None else tensor.shape for tensor in inputs]
        if shapes != self.shapes:
            self.shapes, self.calls, self.graph = shapes, 0, None
        self.calls += 1
        if self.calls <= WARM_UP:
            self.stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(self.stream):
                outputs = self.update(*inputs)
            torch.cuda.current_stream().wait_stream(self.stream)
            return outputs
        if self.graph is None:
            self.capture(inputs)
        for mine, given in zip(self.inputs, inputs, strict=True):
            if mine is not None and given is not None:
                mine.copy_(given)
        for rate, group in zip(self.rates, self.optimizer.param_groups, strict=True):
            rate.fill_(group["lr"])
        self.graph.replay()
        return self.outputs

    def capture(self, inputs: tuple[torch.Tensor | None, ...]) -> None:
        """Record an update, which is not carried out; learning rates become tensors in it."""
        self.inputs = [None if tensor is None else tensor.clone() for tensor in inputs]
        groups: list[dict[str, Any]] = self.optimizer.param_groups
        given = [group["lr"] for group in groups]
        self.rates = [torch.tensor(rate, device="cuda") for rate in given]
        self.graph = torch.cuda.CUDAGraph()
        for group, rate in zip(groups, self.rates, strict=True):
            group["lr"] = rate
        try:
            with torch.cuda.graph(self.graph, stream=self.stream):
                self.outputs = self.update(*self.inputs)
        finally:
            for group, rate in zip(groups, given, strict=True):
                group["lr"] = rate
