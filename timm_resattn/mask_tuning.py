"""Masks as an adapter: the trunk stays as it is and the masks learn on top of it.

A transplanted trunk (`timm_resattn.transplant_trunk`) computes its donor's function, its masks fresh. In three lines:

    model = train_masks_only(timm.create_model("resattn50", pretrained=True, num_classes=10))
    ...  # train: masks, final norm and head learn
    train_all(model)  # and train on: everything learns

With timm's scripts: ``timm-resattn run --train-only masks train.py --model resattn50 --pretrained ...``, and then
``train.py`` without the option, with ``--initial-checkpoint``.
"""

import re
import sys
from typing import Any, Iterator, TypeVar, cast

import timm
from torch import nn

from .attention import AttentionModule
from .network import ResAttn

__all__ = ["train_all", "train_masks_only", "train_masks_only_in_scripts"]

Self = TypeVar("Self", bound=nn.Module)


class _MasksOnly(ResAttn):
    """A ResAttn whose stem and trunk stay in evaluation mode, so that their running statistics stay as they are."""

    def train(self: Self, mode: bool = True) -> Self:
        super().train(mode)
        for part in _trunk(self):
            part.eval()
        return self


def _trunk(model: nn.Module) -> Iterator[nn.Module]:
    """Stem, units, and the units of each Attention Module: all but masks, final norm and head."""
    yield model.get_submodule("stem")
    for name, block in model.named_modules():
        if re.fullmatch(r"stages\.\d+\.blocks\.\d+", name):
            yield from (block.pre, block.trunk, block.post) if isinstance(block, AttentionModule) else (block,)


def _network(model: nn.Module) -> ResAttn:
    if type(model) not in (ResAttn, _MasksOnly):  # of another class nothing would be left
        raise ValueError(f"{type(model).__name__} is not a network of this package, and has no masks to train.")
    return cast(ResAttn, model)


def train_masks_only(model: nn.Module) -> ResAttn:
    """Freeze all of a network but its masks, final norm and head, in place; returns the network.

    What is frozen has no gradients and stays in evaluation mode whatever `train` says: its running statistics stay as
    they are, and it drops no path. State dict and function in evaluation mode are unchanged.

    Raises:
        ValueError: It is not a network of this package, but of a subclass or a wrapper, for example, or has no masks.
    """
    model = _network(model)
    if not any(isinstance(m, AttentionModule) and m.mask is not None for m in model.modules()):
        raise ValueError("The network has no masks to train: its mask_type is 'none' or its depths are all 0.")
    for part in _trunk(model):
        part.requires_grad_(False)
    model.__class__ = _MasksOnly
    return model.train(model.training)


def train_all(model: nn.Module) -> nn.Module:
    """Undo `train_masks_only`, in place: everything learns; returns the network.

    Raises:
        ValueError: As `train_masks_only`.
    """
    model = _network(model)
    model.__class__ = ResAttn
    return model.requires_grad_(True).train(model.training)


def train_masks_only_in_scripts() -> None:
    """Let the networks that a script creates in this process from now on train their masks only.

    If the first of them has none, the process ends with a sentence; later ones without masks, as the teacher of a
    distillation, are left alone.
    """
    create = timm.create_model
    first = True

    def create_and_freeze(*args: Any, **kwargs: Any) -> nn.Module:
        nonlocal first
        model = create(*args, **kwargs)
        try:
            train_masks_only(model)
        except ValueError as error:
            if first:
                sys.exit(f"timm-resattn run: --train-only masks: {error}")
        first = False
        return model

    timm.create_model = timm.models.create_model = create_and_freeze
