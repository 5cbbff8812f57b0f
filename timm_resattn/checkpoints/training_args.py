"""What a checkpoint tells of the network that it is of: input channels, classes and, from timm's train.py, the rest.

timm's train.py stores its arguments beside the weights: those of the model and of the data are among them.
"""

import argparse
import inspect
import json
from typing import Any, Dict, Mapping, Optional, Tuple

from timm.data import create_transform, resolve_data_config
from timm.models import PretrainedCfg, get_pretrained_cfg, is_model, list_models

from ..network import ResAttn
from .place import StateDict

__all__ = ["check_model_kwargs", "in_chans_of", "num_classes_of", "trained_with"]

DATA = ("input_size", "interpolation", "mean", "std", "crop_pct", "crop_mode")

# the first convolution, and weight and bias of the classifier, in each kind of source
STEMS = ("stem.conv.weight", "conv1.weight", "features.init_block.conv.conv.weight", "conv1:0")
CLASSIFIERS = {
    "head.fc.weight": "head.fc.bias",
    "fc.weight": "fc.bias",
    "output.weight": "output.bias",
    "classifier:0": "classifier:1",
}


def in_chans_of(tensors: StateDict) -> int:
    """Input channels of a checkpoint's network."""
    return next((t.shape[1] for t in map(tensors.get, STEMS) if t is not None and t.ndim == 4), 3)


def num_classes_of(tensors: StateDict) -> int:
    """Classes of a checkpoint's classifier, 0 if it has none; a `ValueError` for a part of one."""
    for weight, bias in CLASSIFIERS.items():
        if weight in tensors or bias in tensors:
            if weight not in tensors:
                raise ValueError(f"Its classifier has {bias} but no {weight}.")
            shape = tuple(tensors[weight].shape)
            if len(shape) not in (2, 4):
                raise ValueError(f"Its classifier's {weight} is of shape {shape}.")
            return shape[0]
    return 0


def trained_with(
    checkpoint: Mapping[str, Any], kind: str, model_name: str, in_chans: int, transplant: bool = False
) -> Tuple[Dict[str, Any], Dict[str, Any]]:
    """Arguments of the model and a pretrained cfg for it, by the checkpoint where it tells them.

    Args:
        checkpoint: The file's content.
        kind: Of its weights, one of `timm_resattn.checkpoints.adapt.SOURCES`.
        model_name: The model that they are for, with the tag whose images' configuration holds, if with any.
        in_chans: Their input channels.
        transplant: Take the checkpoint for a donor even if it is of this family: of a bare trunk, without masks.

    Raises:
        ValueError: It is of another model, or its arguments make no sense.
    """
    args = checkpoint.get("args")
    args = vars(args) if isinstance(args, argparse.Namespace) else {}
    trained = args["model"] if isinstance(args.get("model"), str) else model_name
    architecture, wanted = trained.partition(".")[0], model_name.partition(".")[0]
    own = kind == "timm" or (kind == "donor" and not transplant and architecture in list_models(module="resattn"))
    if own and is_model(architecture) and "model" in args and architecture != wanted:
        raise ValueError(f"the checkpoint is one of {architecture}, not of {wanted}.")
    kwargs: Dict[str, Any] = {"pool_mode": "ceil"} if kind == "caffe-npz" else {}
    try:
        if own:
            kwargs.update(args.get("model_kwargs") or {})
            if args.get("gp"):
                kwargs["global_pool"] = args["gp"]
            check_model_kwargs(kwargs)
        cfg = _registered_cfg(trained) or _registered_cfg(architecture) or _registered_cfg(model_name)
        assert cfg is not None
        overlay = _overlay(cfg, args, in_chans)
        json.dumps([kwargs, overlay], allow_nan=False)  # they become a file
        create_transform(**{name: overlay[name] for name in DATA}, is_training=False)
        return kwargs, overlay
    except Exception as error:  # of any kind: it is any content
        reason = " ".join(str(error).split())[:300].rstrip(".")
        raise ValueError(f"the training arguments in it make no sense ({type(error).__name__}: {reason}).") from error


def check_model_kwargs(kwargs: Mapping[Any, Any]) -> None:
    """Raise a `ValueError` that names the arguments that no network has."""
    known = inspect.signature(ResAttn).parameters.keys() - {"device", "dtype"}
    unknown = [str(name) for name in kwargs if name not in known]
    if unknown:
        raise ValueError(f"a model has no argument {', '.join(sorted(unknown))}; it has {', '.join(sorted(known))}.")


def _registered_cfg(name: str) -> Optional[PretrainedCfg]:
    try:
        return get_pretrained_cfg(name)
    except RuntimeError:  # an unknown tag
        return None


def _overlay(cfg: PretrainedCfg, args: Dict[str, Any], in_chans: int) -> Dict[str, Any]:
    """The cfg of weights that nothing is known of but what they were trained with."""
    unknown = dict.fromkeys(("url", "file", "hf_hub_id", "tag", "license", "description", "origin_url"))
    overlay: Dict[str, Any] = dict(unknown, label_names=None, label_descriptions=None)
    overlay.update(test_input_size=cfg.test_input_size, test_crop_pct=cfg.test_crop_pct)
    if any(args.get(name) for name in ("img_size", "input_size", "crop_pct")):
        overlay.update(test_input_size=None, test_crop_pct=None)
    overlay.update(resolve_data_config(dict(args, in_chans=in_chans), pretrained_cfg=cfg.to_dict()))
    for size in ("input_size", "test_input_size"):
        if overlay[size]:
            overlay[size] = (in_chans, *overlay[size][1:])
    if overlay["input_size"] != cfg.input_size:
        overlay["pool_size"] = None
    for key in ("mean", "std"):
        values = overlay[key]
        if len(values) != in_chans:
            overlay[key] = (sum(values) / len(values),) * in_chans
    return overlay
