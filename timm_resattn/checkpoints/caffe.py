"""The authors' Caffe networks by this package's names."""

from typing import Dict, List, Mapping, Sequence, Tuple

import torch

from .place import StateDict, place_layers

__all__ = ["blobs_of_archive", "from_caffe"]

# model name -> Attention Modules of the authors' stages A, B, C; whether the trunk is pre-activated
MODELS: Dict[str, Tuple[Sequence[int], bool]] = {
    "resattn56": ((1, 1, 1), True),
    "resattn92": ((1, 2, 3), True),
    "resattnext56_32x4d": ((1, 1, 1), False),
    "resattnext92_32x4d": ((1, 2, 3), False),
}


def _layers(depths: Sequence[int], preact: bool) -> Dict[str, str]:
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


def from_caffe(blobs: Mapping[str, Sequence[torch.Tensor]], inverse_std: bool = False) -> StateDict:
    """Convert the authors' Caffe networks: Attention-56, Attention-92, AttentionNeXt-56, AttentionNeXt-92.

    The result fits, strictly, `resattn56`, `resattn92`, `resattnext56_32x4d` or `resattnext92_32x4d`: whichever
    definition the layer names fit best. Build the model with ``pool_mode="ceil"`` for the authors' function.

    Args:
        blobs: The authors' layer names and their blobs, as tensors: a convolution ``[weight]``, a ``BN``
            ``[scale, shift, mean, variance]`` (each ``(C,)``, ``(1, C)`` or ``(1, C, 1, 1)``), the classifier
            ``[weight, bias]``.
        inverse_std: The fourth blob of each ``BN`` holds ``(variance + 1e-5) ** -0.5``, as the authors' fork of Caffe
            (buptwangfei/caffe, ``bn_layer.cu``) writes it into its model files, rather than the variance.

    Returns:
        The state dict; its tensors share memory with the blobs where nothing had to be computed.

    Raises:
        ValueError: Tensors are missing, unexpected or of the wrong shape; all of them are listed.
    """
    roles = ("weight", "bias", "running_mean", "running_var")
    tensors: StateDict = {}
    for layer, layer_blobs in blobs.items():
        for i, blob in enumerate(layer_blobs):
            if layer.endswith("/bn"):
                if blob.ndim in (2, 4) and blob.numel() == blob.shape[1]:
                    blob = blob.flatten()
                if inverse_std and i == 3:
                    blob = (blob.double() ** -2 - 1e-5).clamp(min=0).to(blob.dtype)
            tensors[f"{layer}.{roles[i] if i < len(roles) else i}"] = blob
    return place_layers(tensors, {name: _layers(*args) for name, args in MODELS.items()})


def blobs_of_archive(arrays: Mapping[str, torch.Tensor]) -> Dict[str, List[torch.Tensor]]:
    """Blobs by layer, from those of an archive that holds blob i of layer L under the key ``L:i``.

    Raises:
        ValueError: A key has another form, or a blob before it is missing.
    """
    blobs: Dict[str, List[torch.Tensor]] = {}
    for key in sorted(arrays, key=lambda key: (len(key), key)):
        layer, _, index = key.rpartition(":")
        if index != str(len(blobs.setdefault(layer, []))):
            raise ValueError(f"the keys of the archive must be LAYER:0, LAYER:1 and so on; {key!r} is none.")
        blobs[layer].append(arrays[key])
    return blobs
