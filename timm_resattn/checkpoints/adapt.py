"""Checkpoints of any known kind, recognised by their names and brought to a model's."""

from pathlib import Path
from typing import Any, Dict, Mapping

from torch import nn

from ..shipped import check_hash
from .caffe import blobs_of_archive, from_caffe
from .place import HEAD, StateDict, check_values, place
from .pytorchcv import from_pytorchcv, is_pytorchcv, pytorchcv_model
from .read import unwrap
from .transplant import donor_kind, transplant_trunk

__all__ = ["SOURCES", "adapt_state_dict", "load_weights", "source_kind"]

SOURCES: Dict[str, str] = {
    "timm": "a checkpoint of this model family",
    "donor": "a residual network, the donor of the trunk",
    "pytorchcv": "a checkpoint of pytorchcv's network",
    "caffe-npz": "blobs of the authors' Caffe network",
}


def source_kind(names: Mapping[str, Any]) -> str:
    """Which of `SOURCES` tensors are, by their names."""
    if any(":" in name for name in names):
        return "caffe-npz"
    if is_pytorchcv(names):
        return "pytorchcv"
    return "timm" if donor_kind(names) is None else "donor"


def adapt_state_dict(state_dict: Mapping[str, Any], model: nn.Module) -> StateDict:
    """Bring a checkpoint of any known kind to a model's names; this is the model family's ``checkpoint_filter_fn``.

    Known by their names are this package's own weights, pytorchcv's (`from_pytorchcv`), donors (`transplant_trunk`)
    and archives of the authors' blobs (`from_caffe`), each in the wrappings of `unwrap`. The stem keeps the
    checkpoint's input channels and the classifier whatever the checkpoint has of it: timm adapts or discards those.

    Raises:
        ValueError: The checkpoint is of none of these kinds, is of pytorchcv's network and the model is not, or
            tensors of it are missing, unexpected or of the wrong shape; all of them are listed. Or the model's
            pretrained cfg names a file that ships and that file is not what shipped.
    """
    check_hash(Path((getattr(model, "pretrained_cfg", None) or {}).get("file") or ""))
    tensors = unwrap(state_dict)
    own = model.state_dict()
    kind = source_kind(tensors)
    if kind == "donor" and not own.keys() - set(HEAD) <= tensors.keys():  # a bare trunk has a ResNetV2's names
        return transplant_trunk(tensors, model)
    if kind == "pytorchcv":
        if not any(getattr(module, "double_skip", False) for module in model.modules()):
            raise ValueError(
                f"These weights are of pytorchcv's network, which is {pytorchcv_model(tensors)} (double_skip=True) "
                "here: this model would compute another function with them."
            )
        tensors = from_pytorchcv(tensors)
    elif kind == "caffe-npz":
        tensors = from_caffe(blobs_of_archive(tensors))
    names = {name: name for name in (*own, *HEAD) if name in own or name in tensors}
    return place(tensors, names, own, "The checkpoint does not fit the model", adaptable=True)


def load_weights(model: nn.Module, checkpoint: Mapping[str, Any]) -> None:
    """Load a checkpoint of any known kind into a model, all of it, sane and in the model's shapes.

    Raises:
        ValueError: As `adapt_state_dict` and `check_values`, or for a classifier that is not the model's.
    """
    weights = adapt_state_dict(checkpoint, model)
    if not model.state_dict().keys() & set(HEAD):
        weights = {name: tensor for name, tensor in weights.items() if name not in HEAD}
    check_values(weights)
    try:
        model.load_state_dict(weights, strict=True)
    except RuntimeError as error:  # the classifier's
        raise ValueError(" ".join(str(error).split())) from error
