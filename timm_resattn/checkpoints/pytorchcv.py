"""pytorchcv's networks by this package's names."""

from typing import Dict, Mapping, Sequence

import torch

from .place import StateDict, best_fit, place_layers

__all__ = ["from_pytorchcv", "is_pytorchcv", "pytorchcv_model"]


def _layers(depths: Sequence[int]) -> Dict[str, str]:
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


MODELS = {"resattn56_dskip": _layers((1, 1, 1)), "resattn92_dskip": _layers((1, 2, 3))}


def is_pytorchcv(names: Mapping[str, torch.Tensor]) -> bool:
    """Recognise pytorchcv's weights by their names."""
    return any(name.startswith("features.init_block.") for name in names)


def pytorchcv_model(names: Mapping[str, torch.Tensor]) -> str:
    """Name of the model that computes the function of pytorchcv's weights."""
    return best_fit(names, MODELS)


def from_pytorchcv(state_dict: Mapping[str, torch.Tensor]) -> StateDict:
    """Convert pytorchcv's ResAttNet-56 and -92, in which the one public set of ImageNet weights is stored.

    The result fits `resattn56_dskip` or `resattn92_dskip`, whichever the names fit best. The classifier may have any
    number of classes, or be missing, and the stem any number of input channels.

    Raises:
        ValueError: Tensors are missing, unexpected or of the wrong shape; all of them are listed.
    """
    return place_layers(state_dict, MODELS, adaptable=True)
