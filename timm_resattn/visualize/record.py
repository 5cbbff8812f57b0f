"""Recording what the Attention Modules of a network do in a forward pass."""

import threading
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, Callable, Dict, Iterator, Optional

import torch
from torch import nn

from ..attention import AttentionModule

__all__ = ["AttentionRecord", "capture_masks", "record_attention"]

Keep = Callable[[str, str, torch.Tensor], None]
# torch's stance is of all threads: the first that records sets it, the last one takes it back
_LOCK = threading.Lock()
_STANCE = ExitStack()
_recording = 0


@contextmanager
def _uncompiled() -> Iterator[None]:
    """Within, code that is compiled already runs as it is written: it knows nothing of new hooks."""
    global _recording
    set_stance = getattr(torch.compiler, "set_stance", None)
    with _LOCK:
        if _recording == 0 and set_stance is not None:
            _STANCE.enter_context(set_stance("force_eager"))
        _recording += 1
    try:
        yield
    finally:
        with _LOCK:
            _recording -= 1
            if _recording == 0:
                _STANCE.close()


@contextmanager
def _hooked(model: nn.Module, keep: Keep) -> Iterator[None]:
    """Call ``keep(name, part, tensor)`` for the trunk, mask and product of each module with a mask."""
    modules = {name: m for name, m in model.named_modules() if isinstance(m, AttentionModule) and m.mask is not None}
    if not modules:
        raise ValueError(
            f"No masks to capture: this {type(model).__name__} has no AttentionModule with a mask, as the networks of "
            "this package have unless they are scripted, traced or built with mask_type='none'."
        )

    thread = threading.get_ident()

    def keep_own(name: str, part: str, tensor: torch.Tensor) -> None:
        if threading.get_ident() == thread:  # others may run the network meanwhile
            keep(name, part, tensor)

    def hooks(name: str, module: AttentionModule) -> Iterator[Any]:
        def after(part: str) -> Any:
            return lambda _, args, output: keep_own(name, part, output)

        yield module.trunk.register_forward_hook(after("trunk"))
        if module.mask is not None:
            yield module.mask.register_forward_hook(after("mask"))
        yield module.post.register_forward_pre_hook(lambda _, args: keep_own(name, "product", args[0]))

    handles = [handle for name, module in modules.items() for handle in hooks(name, module)]
    try:
        with _uncompiled():
            yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def capture_masks(model: nn.Module) -> Iterator[Dict[str, torch.Tensor]]:
    """Record the mask M of every `AttentionModule` in each forward pass of the ``with`` block, in the block's thread.

    A model that ``torch.compile`` made or changed runs uncompiled within the block (from torch 2.6 on).

    Yields:
        The dict that forward passes fill: module name, for example ``"stages.0.blocks.1"``, to the mask
        ``(B, C, h, w)`` of the last one, detached, in network order. It stays filled after the block.

    Raises:
        ValueError: The model has no Attention Module with a mask; the message says why.
        RuntimeError: At the end of the block: no mask was recorded.
    """
    masks: Dict[str, torch.Tensor] = {}

    def keep(name: str, part: str, tensor: torch.Tensor) -> None:
        if part == "mask":
            masks[name] = tensor.detach()

    with _hooked(model, keep):
        yield masks
    if not masks:
        raise RuntimeError("No mask was recorded: call this model itself, not compiled, in the block and its thread.")


@dataclass(frozen=True)
class AttentionRecord:
    """What `record_attention` returns; the dicts go from module name to ``(B, C, h, w)``, in network order.

    Attributes:
        logits: ``(B, num_classes)``.
        classes: The class of each image that the effects are about, ``(B,)``.
        trunks: T, the features before the mask.
        masks: M.
        products: H, ``(1 + M) * T`` or, with naive attention learning, ``M * T``.
        gradients: ``dy/dM`` with y the class's logit.
    """

    logits: torch.Tensor
    classes: torch.Tensor
    trunks: Dict[str, torch.Tensor]
    masks: Dict[str, torch.Tensor]
    products: Dict[str, torch.Tensor]
    gradients: Dict[str, torch.Tensor]

    @property
    def effects(self) -> Dict[str, torch.Tensor]:
        """``M * dy/dM``: by how much, to first order, each value of the mask raises the class's logit."""
        return {name: mask * self.gradients[name] for name, mask in self.masks.items()}


def record_attention(model: nn.Module, images: torch.Tensor, classes: Optional[torch.Tensor] = None) -> AttentionRecord:
    """Run a classifier and record what its Attention Modules do, and to which effect on a class.

    Args:
        model: A classifier in evaluation mode.
        images: ``(B, in_chans, H, W)``, normalised.
        classes: ``(B,)``, the class of each image whose logit the effects are about; by default the predicted one.

    Raises:
        ValueError: The model is in training mode, in which images of a batch would depend on each other and the norms'
            statistics would change, or has no Attention Module with a mask.
        RuntimeError: There is no such class.
    """
    if model.training:
        raise ValueError("the model must be in evaluation mode: model.eval().")
    parts: Dict[str, Dict[str, torch.Tensor]] = {"trunk": {}, "mask": {}, "product": {}}

    def keep(name: str, part: str, tensor: torch.Tensor) -> None:
        parts[part][name] = tensor

    with torch.inference_mode(False), torch.enable_grad():
        with _hooked(model, keep):
            logits = model(images.detach().clone().requires_grad_())  # a leaf: the parameters may be frozen
        # a clone: of inference mode nothing is kept for backward
        classes = logits.argmax(1) if classes is None else classes.to(logits.device).clone()
        masks = parts["mask"]
        wanted = logits.gather(1, classes[:, None]).sum()
        gradients = dict(zip(masks, torch.autograd.grad(wanted, list(masks.values()))))
    trunks, masks, products = ({n: t.detach() for n, t in tensors.items()} for tensors in parts.values())
    return AttentionRecord(logits.detach(), classes, trunks, masks, products, gradients)
