"""Tensors by the names of a model: all of them, in the right shapes and sane, or one error that lists what is wrong."""

from typing import Dict, List, Mapping

import torch
from timm.models import create_model

__all__ = ["HEAD", "StateDict", "best_fit", "check_values", "place", "place_layers"]

StateDict = Dict[str, torch.Tensor]
HEAD = ("head.fc.weight", "head.fc.bias")
STEM = "stem.conv.weight"


def place(
    tensors: Mapping[str, torch.Tensor],
    names: Mapping[str, str],
    own: Mapping[str, torch.Tensor],
    why: str,
    adaptable: bool = False,
) -> StateDict:
    """The tensors by our names.

    Args:
        tensors: Tensors by a source's names.
        names: The source's name of each of ours.
        own: The model's tensors, for their shapes.
        why: The error's first words.
        adaptable: Leave to timm what it adapts to the model or discards, and to ``load_state_dict`` what is wrong
            with it then: the classifier, which may be missing or of any shape, and the stem's input channels.

    Returns:
        Each tensor by our name; ``num_batches_tracked``, which old files lack, is 0 if it is missing.

    Raises:
        ValueError: Tensors are missing, unexpected or wrongly shaped; all of them are listed.
    """
    problems: Dict[str, List[str]] = {"missing": [], "unexpected": [], "wrongly shaped": []}
    placed: StateDict = {}
    for ours, theirs in names.items():
        if theirs in tensors:
            placed[ours] = tensor = tensors[theirs]
            found, wanted = list(tensor.shape), list(own[ours].shape if ours in own else tensor.shape)
            free = adaptable and (ours in HEAD or (ours == STEM and found[:1] + found[2:] == wanted[:1] + wanted[2:]))
            if found != wanted and not free:
                problems["wrongly shaped"].append(f"{theirs} {tuple(found)} instead of {tuple(wanted)}")
        elif ours.endswith("num_batches_tracked"):
            placed[ours] = torch.zeros((), dtype=torch.long)
        elif not (adaptable and ours in HEAD):
            problems["missing"].append(theirs)
    known = set(names.values())
    problems["unexpected"] = [name for name in tensors if name not in known]
    listed = "; ".join(f"{problem}: {', '.join(found)}" for problem, found in problems.items() if found)
    if listed:
        raise ValueError(f"{why}: {listed}.")
    return placed


def best_fit(tensors: Mapping[str, torch.Tensor], candidates: Mapping[str, Mapping[str, str]]) -> str:
    """Name of the model whose layers, by the source's names, fit the tensors' names best."""
    found = {name.rpartition(".")[0] for name in tensors}
    return min(candidates, key=lambda name: len(set(candidates[name].values()) ^ found))


def place_layers(
    tensors: Mapping[str, torch.Tensor], candidates: Mapping[str, Mapping[str, str]], adaptable: bool = False
) -> StateDict:
    """State dict of the candidate model (its layers by the source's names) that fits best."""
    model_name = best_fit(tensors, candidates)
    own = create_model(model_name, device="meta").state_dict()
    paths = {name: name.rpartition(".") for name in own}
    names = {name: f"{candidates[model_name][path]}.{tensor}" for name, (path, _, tensor) in paths.items()}
    return place(tensors, names, own, f"The tensors do not fit {model_name}", adaptable)


def check_values(tensors: Mapping[str, torch.Tensor]) -> None:
    """Raise a `ValueError` that names the tensors no trained network holds.

    Those are tensors that are not floating-point numbers (``num_batches_tracked`` excepted), NaN and infinity, also
    such as single precision makes of large numbers, and negative variances.
    """
    problems = []
    for name, tensor in tensors.items():
        if name.endswith("num_batches_tracked"):
            continue
        if not tensor.is_floating_point() or tensor.layout is not torch.strided:
            kind = tensor.dtype if tensor.layout is torch.strided else tensor.layout
            problems.append(f"{name} is of type {str(kind).removeprefix('torch.')}")
        elif not tensor.float().isfinite().all():
            problems.append(f"{name} is not finite")
        elif name.endswith("running_var") and (tensor < 0).any():
            problems.append(f"{name} is negative")
    if problems:
        raise ValueError(f"The weights are damaged: {', '.join(problems)}.")
