"""Weights from elsewhere, by this package's names.

Each converter is a pure function from a source's tensors to a complete state dict of the matching model. It places
every tensor or refuses: missing, unexpected and wrongly shaped entries are listed together in one `ValueError`.
"""

from typing import Dict, List, Mapping, Sequence, Tuple

import torch
from timm.models import create_model
from torch import nn

from . import resattn as _resattn  # noqa: F401  registers the models that the names below belong to

__all__ = ["from_caffe"]

# model name -> Attention Modules of the authors' stages A, B, C; whether the trunk is pre-activated
_CAFFE_MODELS: Dict[str, Tuple[Sequence[int], bool]] = {
    "resattn56": ((1, 1, 1), True),
    "resattn92": ((1, 2, 3), True),
    "resattnext56_32x4d": ((1, 1, 1), False),
    "resattnext92_32x4d": ((1, 2, 3), False),
}


def _caffe_layers(depths: Sequence[int], preact: bool) -> Dict[str, str]:
    """The authors' layer of each of our convolutions, norms and the classifier: our module path -> layer name.

    A layer ``X/bn`` normalises the tensor X: in a pre-activation network it is the first norm of the unit that reads
    X, in a post-activation one it follows X's convolution.
    """
    layers = {"stem.conv": "conv1", "stem.norm": "conv1/bn"}
    down_name, up_name = ("down_sample", "up_sample") if preact else ("down", "up")

    def unit(path: str, name: str, reads: str, project: bool = False) -> str:
        for i, kernel in enumerate(("1x1", "3x3", "1x1"), start=1):
            conv = f"{name}/branch1/conv{i}_{kernel}"
            layers[f"{path}.conv{i}"] = conv
            if not preact:
                layers[f"{path}.norm{i}"] = f"{conv}/bn"
            elif i < 3:
                layers[f"{path}.norm{i + 1}"] = f"{conv}/bn"
        if preact:
            layers[f"{path}.norm1"] = f"{reads}/bn"
        if project:
            layers[f"{path}.downsample.conv"] = f"{name}/branch2/conv1_1x1"
            if not preact:
                layers[f"{path}.downsample.norm"] = f"{name}/branch2/conv1_1x1/bn"
        return name

    def mask(path: str, name: str, pools: int) -> None:
        level_path = f"{path}.pyramid"
        for level in range(1, pools + 1):
            down = unit(
                f"{level_path}.down.1", f"{name}/{down_name}/res{level}_1", f"{name}/{down_name}/pool{level}_3x3_s2"
            )
            if level == pools:
                unit(f"{level_path}.up.0", f"{name}/{down_name}/res{level}_2", down)
            else:
                unit(f"{level_path}.skip", f"{name}/skip/res{level}", down)
                unit(f"{level_path}.up.0", f"{name}/{up_name}/res{level}_1", f"{name}/{up_name}{level}")
            level_path += ".inner"
        if preact:
            layers[f"{path}.tail.norm1"] = f"{name}/{up_name}/interp_1/bn"
        layers[f"{path}.tail.conv1"] = f"{name}/linear_1"
        layers[f"{path}.tail.norm2"] = f"{name}/linear_1/bn"
        layers[f"{path}.tail.conv2"] = f"{name}/linear_2"

    tensor = "pool1_3x3_s2"
    for stage, (letter, depth) in enumerate(zip("ABC", depths)):
        tensor = unit(f"stages.{stage}.blocks.0", f"pre_res_{stage + 1}", tensor, project=True)
        for i in range(1, depth + 1):
            path, name = f"stages.{stage}.blocks.{i}", f"Attention{letter}_{i}"
            tensor = unit(f"{path}.pre.0", f"{name}/trunk/res1", tensor)
            tensor = unit(f"{path}.trunk.0", f"{name}/trunk/res2", tensor)
            unit(f"{path}.trunk.1", f"{name}/trunk/res3", tensor)
            mask(f"{path}.mask", f"{name}/mask", pools=3 - stage)
            tensor = unit(f"{path}.post.0", name, f"{name}/fusion")
    for i in range(3):
        tensor = unit(f"stages.3.blocks.{i}", f"post_res_4_{i + 1}", tensor, project=i == 0)
    if preact:
        layers["norm"] = f"{tensor}/bn"
    layers["head.fc"] = "classifier"
    return layers


def from_caffe(blobs: Mapping[str, Sequence[torch.Tensor]]) -> Dict[str, torch.Tensor]:
    """Convert the authors' Caffe networks: Attention-56, Attention-92, AttentionNeXt-56, AttentionNeXt-92.

    The result fits, strictly, `resattn56`, `resattn92`, `resattnext56_32x4d` or `resattnext92_32x4d`: whichever
    definition the layer names fit best. Build the model with ``pool_mode="ceil"`` for the authors' function.

    Args:
        blobs: The authors' layer names and their blobs, as tensors: a convolution ``[weight]``, a ``BN``
            ``[scale, shift, mean, variance]`` (each ``(C,)`` or ``(1, C, 1, 1)``), the classifier ``[weight, bias]``.

    Returns:
        The state dict; its tensors share memory with the blobs.

    Raises:
        ValueError: Layers or blobs are missing, unexpected or of the wrong shape; all of them are listed.
    """
    candidates = {name: _caffe_layers(*args) for name, args in _CAFFE_MODELS.items()}
    model_name = min(candidates, key=lambda name: len(set(candidates[name].values()) ^ set(blobs)))
    layers = candidates[model_name]
    modules = dict(create_model(model_name, device="meta").named_modules())

    missing = [layer for layer in layers.values() if layer not in blobs]
    unexpected = [layer for layer in blobs if layer not in layers.values()]
    misshapen: List[str] = []
    state_dict: Dict[str, torch.Tensor] = {}
    for path, layer in layers.items():
        if layer not in blobs:
            continue
        tensors = _named_tensors(modules[path])
        if len(blobs[layer]) != len(tensors):
            misshapen.append(f"{layer} ({len(blobs[layer])} blobs instead of {len(tensors)})")
            continue
        for (name, like), blob in zip(tensors.items(), blobs[layer]):
            if like.ndim == 1 and tuple(blob.shape) == (1, like.shape[0], 1, 1):
                blob = blob.flatten()
            if blob.shape != like.shape:
                misshapen.append(f"{layer} ({name} {tuple(blob.shape)} instead of {tuple(like.shape)})")
            state_dict[f"{path}.{name}"] = blob
        if isinstance(modules[path], nn.BatchNorm2d):
            state_dict[f"{path}.num_batches_tracked"] = torch.tensor(0)
    _refuse(f"The blobs do not fit {model_name}", missing, unexpected, misshapen)
    return state_dict


def _named_tensors(module: nn.Module) -> Dict[str, torch.Tensor]:
    """Tensors of one layer in Caffe's order: weight, bias, running mean, running variance, whichever it has."""
    return {k: v for k, v in module.state_dict().items() if k != "num_batches_tracked"}


def _refuse(why: str, missing: Sequence[str], unexpected: Sequence[str], misshapen: Sequence[str]) -> None:
    """Raise a `ValueError` that lists everything in the way, if anything is."""
    found = {"missing": missing, "unexpected": unexpected, "wrongly shaped": misshapen}
    if any(found.values()):
        raise ValueError(f"{why}: " + "; ".join(f"{kind}: {', '.join(names)}" for kind, names in found.items() if names))
