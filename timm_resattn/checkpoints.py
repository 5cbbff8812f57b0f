"""Weights from elsewhere, by this package's names.

Each converter is a pure function from a source's tensors to a complete state dict of the matching model. It places
every tensor or refuses: missing, unexpected and wrongly shaped tensors are listed together in one `ValueError`.
"""

from typing import TYPE_CHECKING, Any, Dict, List, Mapping, Sequence, Tuple

import torch
from timm.models import create_model

from .transplant import donor_kind, transplant_trunk

if TYPE_CHECKING:
    from .network import ResAttn

__all__ = ["adapt_state_dict", "from_caffe", "from_pytorchcv", "transplant_trunk"]

StateDict = Dict[str, torch.Tensor]

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


def _pytorchcv_layers(depths: Sequence[int]) -> Dict[str, str]:
    """pytorchcv's layer of each of our convolutions, norms and the classifier, in its ResAttNet-56 and -92."""
    layers = {"stem.conv": "features.init_block.conv.conv", "stem.norm": "features.init_block.conv.bn"}

    def unit(path: str, name: str, project: bool = False) -> None:
        for i in (1, 2, 3):
            layers[f"{path}.norm{i}"] = f"{name}.body.conv{i}.bn"
            layers[f"{path}.conv{i}"] = f"{name}.body.conv{i}.conv"
        if project:
            layers[f"{path}.downsample.conv"] = f"{name}.identity_conv"

    for stage, depth in enumerate(depths):
        unit(f"stages.{stage}.blocks.0", f"features.stage{stage + 1}.unit1", project=True)
        for block in range(1, depth + 1):
            path, name = f"stages.{stage}.blocks.{block}", f"features.stage{stage + 1}.unit{block + 1}"
            unit(f"{path}.pre.0", f"{name}.init_blocks.blocks.block1")
            unit(f"{path}.trunk.0", f"{name}.hg.skip_seq.skip1.blocks.block1")
            unit(f"{path}.trunk.1", f"{name}.hg.skip_seq.skip1.blocks.block2")
            level_path, pools = f"{path}.mask.pyramid", 3 - stage
            for level in range(1, pools + 1):
                unit(f"{level_path}.down.1", f"{name}.hg.down_seq.down{level}.res_blocks.blocks.block1")
                unit(f"{level_path}.up.0", f"{name}.hg.up_seq.up{level}.res_blocks.blocks.block1")
                if level < pools:
                    unit(f"{level_path}.skip", f"{name}.hg.skip_seq.skip{level + 1}.skip1")
                level_path += ".inner"
            for i in (1, 2):
                layers[f"{path}.mask.tail.norm{i}"] = f"{name}.middle_block.conv{i}.bn"
                layers[f"{path}.mask.tail.conv{i}"] = f"{name}.middle_block.conv{i}.conv"
            unit(f"{path}.post.0", f"{name}.final_block")
    for i in range(3):
        unit(f"stages.3.blocks.{i}", f"features.stage4.unit{i + 1}", project=i == 0)
    layers["norm"] = "features.post_activ.bn"
    layers["head.fc"] = "output"
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
    candidates = {name: _caffe_layers(*args) for name, args in _CAFFE_MODELS.items()}
    return _fit_best(tensors, candidates)


def from_pytorchcv(state_dict: Mapping[str, torch.Tensor]) -> StateDict:
    """Convert pytorchcv's ResAttNet-56 and -92, in which the one public set of ImageNet weights is stored.

    The result fits `resattn56_dskip` or `resattn92_dskip`, whichever the names fit best. The classifier may have any
    number of classes and the stem any number of input channels.

    Raises:
        ValueError: Tensors are missing, unexpected or of the wrong shape; all of them are listed.
    """
    candidates = {
        "resattn56_dskip": _pytorchcv_layers((1, 1, 1)),
        "resattn92_dskip": _pytorchcv_layers((1, 2, 3)),
    }
    return _fit_best(state_dict, candidates, any_head=True)


def adapt_state_dict(state_dict: Mapping[str, Any], model: "ResAttn") -> StateDict:
    """Bring a checkpoint of any known kind to a model's names; this is the model family's ``checkpoint_filter_fn``.

    Known by their keys are this package's own weights, pytorchcv's (`from_pytorchcv`) and donors
    (`transplant_trunk`), each also inside a training checkpoint (``state_dict_ema``, ``state_dict``, ``model``) and
    behind the prefixes of DistributedDataParallel (``module.``) and torch.compile (``_orig_mod.``). The classifier
    keeps the checkpoint's number of classes and the stem its input channels: timm adapts those.

    Raises:
        ValueError: The checkpoint is of none of these kinds, or tensors of it are missing, unexpected or of the wrong
            shape; all of them are listed.
    """
    for key in ("state_dict_ema", "state_dict", "model_ema", "model"):
        if isinstance(state_dict.get(key), Mapping):
            state_dict = state_dict[key]
            break
    tensors = {_without_prefixes(str(name)): value for name, value in state_dict.items()}
    strange = [name for name, value in tensors.items() if not isinstance(value, torch.Tensor)]
    if strange:
        raise ValueError(f"The checkpoint must map names to tensors; these are none: {', '.join(strange[:10])}.")
    own = model.state_dict()
    if donor_kind(tensors) is not None and not own.keys() - set(_HEAD) <= tensors.keys():
        return transplant_trunk(tensors, model)
    if any(name.startswith("features.init_block.") for name in tensors):
        tensors = from_pytorchcv(tensors)
    names = {name: name for name in own}
    for name in _HEAD:
        if name in tensors:
            names[name] = name  # of a checkpoint with classes for a model without
    return _place(tensors, names, own, "The checkpoint does not fit the model", any_head=True)


_HEAD = ("head.fc.weight", "head.fc.bias")


def _without_prefixes(name: str) -> str:
    for prefix in ("module.", "_orig_mod.", "module."):
        name = name.removeprefix(prefix)
    return name


def _fit_best(
    tensors: Mapping[str, torch.Tensor], candidates: Mapping[str, Mapping[str, str]], any_head: bool = False
) -> StateDict:
    """State dict of the candidate model (its layers by the source's names) that the tensors' names fit best."""

    def strangers(model_name: str) -> int:
        layers = {name.rpartition(".")[0] for name in tensors}
        return len(set(candidates[model_name].values()) ^ layers)

    model_name = min(candidates, key=strangers)
    own = create_model(model_name, device="meta").state_dict()
    layers = candidates[model_name]
    names = {}
    for name in own:
        path, _, tensor = name.rpartition(".")
        names[name] = f"{layers[path]}.{tensor}"
    return _place(tensors, names, own, f"The tensors do not fit {model_name}", any_head)


def _place(
    tensors: Mapping[str, torch.Tensor], names: Mapping[str, str], own: StateDict, why: str, any_head: bool = False
) -> StateDict:
    """The tensors by our names (``names``: ours -> theirs), all of them and in the shapes of ``own``, or an error.

    ``num_batches_tracked``, which no function depends on, may be missing. With ``any_head`` the classifier's first
    dimension and the first convolution's second are free.
    """
    missing: List[str] = []
    misshapen: List[str] = []
    placed: StateDict = {}
    for ours, theirs in names.items():
        if theirs in tensors:
            tensor = tensors[theirs]
            if ours in own and not _same_shape(ours, tensor, own[ours], any_head):
                misshapen.append(f"{theirs} {tuple(tensor.shape)} instead of {tuple(own[ours].shape)}")
            placed[ours] = tensor
        elif ours.endswith("num_batches_tracked"):
            placed[ours] = torch.zeros((), dtype=torch.long)
        else:
            missing.append(theirs)
    known = set(names.values())
    unexpected = [name for name in tensors if name not in known]
    found = {"missing": missing, "unexpected": unexpected, "wrongly shaped": misshapen}
    if missing or unexpected or misshapen:
        listed = "; ".join(f"{kind}: {', '.join(entries)}" for kind, entries in found.items() if entries)
        raise ValueError(f"{why}: {listed}.")
    return placed


def _same_shape(name: str, tensor: torch.Tensor, like: torch.Tensor, any_head: bool) -> bool:
    actual, wanted = list(tensor.shape), list(like.shape)
    free = {"stem.conv.weight": 1, "head.fc.weight": 0, "head.fc.bias": 0}.get(name) if any_head else None
    if free is not None and len(actual) == len(wanted):
        del actual[free], wanted[free]
    return actual == wanted
