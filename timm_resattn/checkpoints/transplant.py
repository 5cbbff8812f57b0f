"""Trunk transplant: a residual network becomes a Residual Attention Network that computes the same function.

The trunk of a Residual Attention Network is a residual network, and a module whose mask M is constant
multiplies its stream, what the units read and add to, by a constant s: ``1 + M`` with attention residual
learning, ``M`` with naive attention learning. The mask's last convolution makes M constant:

* ``mixed``, ``spatial``: it is 0, and ``M = sigmoid(0) = 1/2``;
* ``channel``: its rows are equal, so are the C logits of each position, and ``M = 1 / sqrt(C)``. (Logits of 0
  would give M = 0 and a gradient of 1e12, one over the epsilon of the L2 normalisation.)

Where the donor's stream is x, the model's is ``a x`` with ``a = s^k`` after the k-th module of a stage:

* pre-activation: ``a x + a F(BN(x))`` is the unit's output if BN is told of the factor a (below) and the last
  convolution of F takes it;
* post-activation: so is ``ReLU(a x + a BN(F(BN(conv(x)))))`` if the norm after each convolution of the
  stream is told and the last norm's weight and bias take the factor;
* a projection reads a told norm, or is followed by one, and starts a new stream with a = 1; after the last
  stage the final norm is told, or, in a post-activation network, the classifier's weight is divided by a;
* a unit beyond the donor's is the identity: its last convolution, or its last norm's weight and bias, is 0.

A norm of mean m, variance v and weight w is told that its input became ``a (x + b)`` by mean ``a (m + b)``,
variance ``a^2 v`` and weight ``w sqrt((a^2 v + eps) / (a^2 (v + eps)))``. That is exact for any v, and as
mean and variance are those of the new input, training with the statistics of the batch computes the donor's
function too.
"""

from itertools import count, takewhile
from typing import Any, Iterator, List, Mapping, Optional, Tuple, Union

import torch
from torch import nn

from ..attention import AttentionModule
from ..mask import ChannelAttnAct
from ..units import PostActUnit, PreActUnit
from .place import HEAD, StateDict, place

__all__ = [
    "LAST_PARAMS",
    "UNITS",
    "donor_kind",
    "set_neutral_mask",
    "steps_of",
    "tell_norm",
    "tell_unit",
    "transplant_trunk",
]

STEM_MARGIN = 8.0  # standard deviations between a stem channel's mean and the zero of its ReLU

Stages = List[List[Tuple[str, nn.Module]]]
Shift = Union[float, torch.Tensor]
UNITS = {"resnetv2": PreActUnit, "resnet": PostActUnit}
# the last parameters of a unit's branch, which scale all of it
LAST_PARAMS = {"resnetv2": ("conv3.weight",), "resnet": ("norm3.weight", "norm3.bias")}


def donor_kind(state_dict: Mapping[str, Any]) -> Optional[str]:
    """Recognise a donor by its names, whether or not `transplant_trunk` has a use for it.

    Returns:
        ``"resnetv2"`` (timm's), ``"resnet"`` (timm's or torchvision's ResNet and ResNeXt) or None.
    """
    if any(".trunk." in str(name) for name in state_dict):  # a ResAttn's own names include those of a ResNetV2
        return None
    if {"stages.0.blocks.0.conv1.weight", "stages.0.blocks.0.norm1.weight"} <= state_dict.keys():
        return "resnetv2"
    if {"layer1.0.conv1.weight", "layer1.0.bn1.weight"} <= state_dict.keys():
        return "resnet"
    return None


def transplant_trunk(state_dict: Mapping[str, torch.Tensor], model: nn.Module) -> StateDict:
    """State dict with which ``model`` computes a donor's function, its masks constant but trainable.

    The donor's units fill the first places of each stage's trunk, the identity fills the rest; this file's
    docstring derives the numbers. The masks, and what else the donor lacks, keep the model's own values. In
    eval mode the logits equal the donor's up to rounding; the map after k modules of a stage is ``s^k``
    times the donor's. In the first training step only the last convolution of each mask gets a gradient, from
    the second on all of it does.

    After the stem's convolution ResNetV2 has no norm and no ReLU, the pre-activation ResAttn for ImageNet
    has. They become ``ReLU(x - mean + 8 std)``, with the running statistics of the donor's first norm, which
    reads the pooled map, and that norm takes the shift back. ReLU and max pooling commute, so this is exact
    unless a pooled value lies more than eight standard deviations below its channel's mean.

    Names and shapes don't show everything: the donor must have the model's epsilon, global pooling and output
    stride, and no anti-aliasing, pooled shortcut or activation other than ReLU.

    Args:
        state_dict: Weights of a classifier with the model's residual units, no more in any stage than the
            model's trunk has: ResNetV2 with batch norm if ``unit_type="preact"``, ResNet or ResNeXt if
            ``"postact"``.
        model: The network to fill; it is not changed.

    Returns:
        A tensor for each name of ``model.state_dict()``, but none for the classifier if the donor has none. The
        donor's keep their type; the stem's convolution and the classifier also keep its input channels and classes,
        which timm adapts when it loads pretrained weights.

    Raises:
        ValueError: The function can't be carried over; the message says why.
    """
    kind = donor_kind(state_dict)
    if kind is None:
        raise ValueError("The names are neither those of timm's ResNetV2 nor of its ResNet and ResNeXt.")
    _check_model(model, kind)
    own = model.state_dict()
    stages = [list(steps_of(model, i)) for i, _ in enumerate(model.get_submodule("stages").children())]
    new = _donated(state_dict, kind, own, stages)

    first_norm: Any = model.get_submodule("stages.0.blocks.0.norm1")
    eps = first_norm.eps
    scale = 1.0  # of the stream: a
    shift: Shift = 0.0  # of the stream, before scaling: b
    if kind == "resnetv2" and "stem.norm.weight" in own:
        shift = _lift_stem(new, eps)
    for name, step in (named_step for steps in stages for named_step in steps):
        if isinstance(step, AttentionModule):
            scale *= set_neutral_mask(new, own, name, step)
        elif f"{name}.conv1.weight" in new:
            scale, shift = tell_unit(new, name, kind, eps, scale, shift)
        else:
            for param in LAST_PARAMS[kind]:
                new[f"{name}.{param}"] = torch.zeros_like(own[f"{name}.{param}"])
    if kind == "resnetv2":
        tell_norm(new, "norm", eps, scale, shift)
    elif "head.fc.weight" in new:
        new["head.fc.weight"] = new["head.fc.weight"] / scale
    return {name: new[name] if name in new else own[name].clone() for name in own if name in new or name not in HEAD}


def _check_model(model: nn.Module, kind: str) -> None:
    """Refuse the options of the model for which no weights give a donor's function."""
    unit: Any = model.get_submodule("stages.0.blocks.0")
    if not isinstance(unit, UNITS[kind]):
        wanted = "'preact' (ResNetV2)" if kind == "resnetv2" else "'postact' (ResNet, ResNeXt)"
        raise ValueError(f"The donor's residual unit is another than the model's, which must be {wanted}.")
    norm: Any = unit.norm2
    if getattr(norm, "running_mean", None) is None or not isinstance(unit.act2, nn.ReLU):
        raise ValueError("The model must have the donor's norm_layer='batchnorm2d' and act_layer='relu'.")
    if getattr(getattr(model.get_submodule("stem"), "pool", None), "ceil_mode", False):
        raise ValueError("The model must have pool_mode='pad', as the donor: 'ceil' samples other positions.")
    modules = [module for module in model.modules() if isinstance(module, AttentionModule)]
    if any(_is_channel(module) and not module.attn_residual for module in modules):
        raise ValueError(
            "attn_act='channel' with attn_residual=False has no neutral mask: M has length 1 over the C "
            "channels, so that each module would shrink the stream sqrt(C) times."
        )


def _is_channel(module: AttentionModule) -> bool:
    mask: Any = module.mask
    return mask is not None and isinstance(mask.tail.attn_act, ChannelAttnAct)


def steps_of(model: nn.Module, stage_idx: int) -> Iterator[Tuple[str, nn.Module]]:
    """The stream's way through a stage: residual units, and each Attention Module where it multiplies."""

    def children(name: str) -> Iterator[Tuple[str, nn.Module]]:
        return ((f"{name}.{child}", module) for child, module in model.get_submodule(name).named_children())

    for name, block in children(f"stages.{stage_idx}.blocks"):
        if isinstance(block, AttentionModule):
            yield from children(f"{name}.pre")
            yield from children(f"{name}.trunk")
            yield name, block
            yield from children(f"{name}.post")
        else:
            yield name, block


def _donor_name(name: str, kind: str) -> str:
    """The donor's name for a name in a ResAttn without modules, whose names are a ResNetV2's."""
    if kind == "resnetv2":
        return name
    if name.startswith("stages."):
        _, stage_idx, _, rest = name.split(".", 3)
        name = f"layer{int(stage_idx) + 1}.{rest}"
    for ours, theirs in (
        ("stem.conv", "conv1"),
        ("stem.norm", "bn1"),
        ("downsample.conv", "downsample.0"),
        ("downsample.norm", "downsample.1"),
        (".norm", ".bn"),
        ("head.fc", "fc"),
    ):
        name = name.replace(ours, theirs)
    return name


def _donated(state_dict: Mapping[str, torch.Tensor], kind: str, own: StateDict, stages: Stages) -> StateDict:
    """The donor's tensors, unchanged, by the names of the places in the model that they fill."""
    places = [[name for name, step in steps if not isinstance(step, AttentionModule)] for steps in stages]

    def depth(stage_idx: int) -> int:
        conv = f"stages.{stage_idx}.blocks.%d.conv1.weight"
        return next(i for i in count() if _donor_name(conv % i, kind) not in state_dict)

    depths = list(takewhile(bool, map(depth, count())))
    room = [len(names) for names in places]
    if len(depths) != len(room) or any(have > places for have, places in zip(depths, room)):
        raise ValueError(f"The donor has {depths} residual units per stage, the trunk room for {room}.")
    if not any(name.endswith("running_mean") for name in state_dict):
        raise ValueError("The donor's norms have no running statistics: only batch norm can be carried over.")

    fills = {name: name for name in ("stem.conv", "norm" if kind == "resnetv2" else "stem.norm", "head.fc")}
    for i, names in enumerate(places):
        fills.update((name, f"stages.{i}.blocks.{j}") for j, name in enumerate(names[: depths[i]]))
    donor_names = {
        name: _donor_name(source + name[len(filled) :], kind)
        for filled, source in fills.items()
        for name in own
        if name.startswith(f"{filled}.")
    }

    tensors = dict(state_dict)
    for name in HEAD:
        donor_name = _donor_name(name, kind)
        if donor_name in tensors:
            donor_names[name] = donor_name  # of a donor with classes for a model without
            if tensors[donor_name].ndim == 4:  # a 1x1 convolution
                tensors[donor_name] = tensors[donor_name].flatten(1)
    why = "The donor is another network than the model's trunk"
    return place(tensors, donor_names, own, why, adaptable=True)


def _lift_stem(new: StateDict, eps: float) -> torch.Tensor:
    """Make the stem's norm and ReLU a shift; returns it, for the norm after the pooling to be told."""
    mean, var = (new[f"stages.0.blocks.0.norm1.{stat}"] for stat in ("running_mean", "running_var"))
    std = torch.sqrt(var.double() + eps)
    new["stem.norm.running_mean"] = mean
    new["stem.norm.running_var"] = var
    new["stem.norm.weight"] = std.to(var.dtype)
    new["stem.norm.bias"] = (STEM_MARGIN * std).to(var.dtype)
    return STEM_MARGIN * std - mean.double()


def tell_unit(new: StateDict, name: str, kind: str, eps: float, scale: float, shift: Shift) -> Tuple[float, Shift]:
    """Adapt a residual unit to an input that became ``scale * (x + shift)``; returns scale and shift of its output."""
    tell_norm(new, f"{name}.norm1", eps, scale, shift)
    if f"{name}.downsample.norm.weight" in new:
        tell_norm(new, f"{name}.downsample.norm", eps, scale, shift)
    if f"{name}.downsample.conv.weight" in new:
        scale, shift = 1.0, 0.0
    for param in LAST_PARAMS[kind]:
        new[f"{name}.{param}"] = new[f"{name}.{param}"] * scale
    return scale, shift


def tell_norm(new: StateDict, name: str, eps: float, scale: float, shift: Shift) -> None:
    """Adapt a batch norm to an input x that became ``scale * (x + shift)``."""
    old = {part: new[f"{name}.{part}"] for part in ("running_mean", "running_var", "weight")}
    mean, var, weight = (tensor.double() for tensor in old.values())
    told = {
        "running_mean": scale * (mean + shift),
        "running_var": scale**2 * var,
        "weight": weight * torch.sqrt((scale**2 * var + eps) / (scale**2 * (var + eps))),
    }
    new.update((f"{name}.{part}", tensor.to(old[part].dtype)) for part, tensor in told.items())


def set_neutral_mask(new: StateDict, own: StateDict, name: str, module: AttentionModule) -> float:
    """Set a module's mask to a constant M; returns the constant s by which the module multiplies then."""
    if module.mask is None:
        return 1.0
    last = own[f"{name}.mask.tail.conv2.weight"]
    chs = last.shape[0]
    if _is_channel(module):
        # logits of non-negative activations (the bias lifts zeros too); of the norm of He's initialisation
        new[f"{name}.mask.tail.conv2.weight"] = torch.full_like(last, (2 / chs) ** 0.5)
        new[f"{name}.mask.tail.norm2.bias"] = torch.ones_like(own[f"{name}.mask.tail.norm2.bias"])
        mask = chs**-0.5
    else:
        new[f"{name}.mask.tail.conv2.weight"] = torch.zeros_like(last)
        mask = 0.5
    return 1 + mask if module.attn_residual else mask
