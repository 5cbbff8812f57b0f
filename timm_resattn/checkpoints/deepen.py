"""Deepening: a trained Residual Attention Network becomes a deeper one that computes the same function.

The Attention Modules that the deeper network has beyond the other's stand after those of their stage. Each is a trunk
of identity units under a constant mask, so it multiplies the stream by a constant; the closing units, and the next
stage's projection or the final norm, are told of it. The numbers are those of `timm_resattn.checkpoints.transplant`.
"""

from typing import Any, Dict, Mapping

import torch
from torch import nn

from ..attention import AttentionModule
from .place import StateDict, place
from .transplant import LAST_PARAMS, UNITS, set_neutral_mask, steps_of, tell_norm, tell_unit

__all__ = ["deepen"]


def deepen(state_dict: Mapping[str, torch.Tensor], model: nn.Module) -> StateDict:
    """State dict with which ``model`` computes the function of a network with fewer Attention Modules.

    Every tensor of the shallower network is taken over. Those of the added modules are the model's own, but for the
    last parameters of each unit and the last convolution of each mask, which make them neutral: in the first training
    step only those get a gradient, from the second on all of them do.

    Args:
        state_dict: Weights of a network that differs from ``model`` in ``depths`` alone, with no more modules in any
            stage.
        model: The network to fill; it is not changed.

    Returns:
        A tensor for each name of ``model.state_dict()``.

    Raises:
        ValueError: They are not of such a network; the message says why, or lists all missing, unexpected and wrongly
            shaped tensors.
    """
    own = model.state_dict()
    first: Any = model.get_submodule("stages.0.blocks.0")
    kind = next((kind for kind, unit_type in UNITS.items() if isinstance(first, unit_type)), None)
    if kind is None or getattr(first.norm2, "running_mean", None) is None:
        raise ValueError("The model must have units of type 'preact' or 'postact' with norm_layer='batchnorm2d'.")
    eps: float = first.norm1.eps
    sources = {name: name for name in own if not name.startswith("stages.")}
    added: Dict[str, AttentionModule] = {}
    num_stages = len(list(model.get_submodule("stages").children()))
    for stage_idx in range(num_stages):
        _place_stage(state_dict, model, stage_idx, sources, added)
    new = place(state_dict, sources, own, "The weights are not those of this network with fewer Attention Modules")

    scale = 1.0  # of the stream, by the added modules before
    for stage_idx in range(num_stages):
        projects = f"stages.{stage_idx}.blocks.0.downsample.conv.weight" in own
        if scale != 1.0 and not projects:
            raise ValueError(f"Stage {stage_idx} must begin with a projection, as the stage before it gets modules.")
        for name, step in steps_of(model, stage_idx):
            inside = next((place for place in added if name == place or name.startswith(f"{place}.")), None)
            if inside == name:
                scale *= set_neutral_mask(new, own, name, added[name])
            elif inside:
                new.update((f"{name}.{part}", torch.zeros_like(own[f"{name}.{part}"])) for part in LAST_PARAMS[kind])
            elif scale != 1.0 and not isinstance(step, AttentionModule):
                scale, _ = tell_unit(new, name, kind, eps, scale, 0.0)
    if kind == "resnetv2":
        tell_norm(new, "norm", eps, scale, 0.0)
    elif "head.fc.weight" in new:
        new["head.fc.weight"] = new["head.fc.weight"] / scale
    return {name: new[name] if name in new else value.clone() for name, value in own.items()}


def _place_stage(
    state_dict: Mapping[str, torch.Tensor],
    model: nn.Module,
    stage_idx: int,
    sources: Dict[str, str],
    added: Dict[str, AttentionModule],
) -> None:
    """Enter a stage's tensors with their names in the shallower network, and the modules that it lacks."""
    prefix = f"stages.{stage_idx}.blocks"
    blocks: Any = model.get_submodule(prefix)
    depth = sum(isinstance(block, AttentionModule) for block in blocks)
    found = len({name.split(".")[3] for name in state_dict if name.startswith(f"{prefix}.")})
    lacking = len(blocks) - found
    if not 0 <= lacking <= depth:
        raise ValueError(
            f"Stage {stage_idx} has {len(blocks)} blocks, {depth} of them Attention Modules, and must not have fewer "
            f"modules than it had; the weights have {found} blocks there."
        )
    for i, block in enumerate(blocks):
        if depth - lacking < i <= depth:
            added[f"{prefix}.{i}"] = block
            continue
        source = i - lacking if i > depth else i
        sources.update((f"{prefix}.{i}.{name}", f"{prefix}.{source}.{name}") for name in block.state_dict())
