"""torchvision's training script for COCO, with our networks among its models.

    python -m benchmarks.detection.coco TRAIN.PY [OPTION ...]
    torchrun --nproc_per_node=8 -m benchmarks.detection.coco TRAIN.PY [OPTION ...]

TRAIN.PY is references/detection/train.py of torchvision's repository; the options are its own. ``--model`` also takes
fasterrcnn_NAME_fpn, maskrcnn_NAME_fpn, retinanet_NAME_fpn and fcos_NAME_fpn for each NAME of our networks with four
stages, and ``--weights-backbone`` then takes the tag of pretrained weights, as a1h_in1k. Norms are synchronised over
the processes: masks that are yet untrained have no statistics to freeze. With pretrained weights the last three stages
train, unless ``--trainable-backbone-layers`` says otherwise, else all do.
"""

import argparse
import runpy
import sys
from functools import partial
from pathlib import Path
from typing import Any

import timm
import torchvision
from torch import nn
from torchvision.models._api import register_model  # no public name; its script looks models up there
from torchvision.models.detection import FCOS, FasterRCNN, MaskRCNN, RetinaNet
from torchvision.ops.feature_pyramid_network import LastLevelP6P7

from timm_resattn import fpn_backbone

COMMAND = "python -m benchmarks.detection.coco"
DETECTORS = {"fasterrcnn": FasterRCNN, "maskrcnn": MaskRCNN, "retinanet": RetinaNet, "fcos": FCOS}
CHANNELS = 256


def build(
    detector: str,
    name: str,
    num_classes: int = 91,
    weights: None = None,
    weights_backbone: str | None = None,
    trainable_backbone_layers: int | None = None,
    **kwargs: Any,
) -> nn.Module:
    """A detector with the anchors and levels of torchvision's own; called as its model builders are."""
    if weights is not None:
        raise ValueError("there are no weights of a whole detector; give --weights-backbone TAG")
    if weights_backbone is None:
        trainable: int | None = None
    else:
        name, trainable = (
            f"{name}.{weights_backbone}",
            3 if trainable_backbone_layers is None else trainable_backbone_layers,
        )
    two_stages = detector.endswith("rcnn")
    backbone = fpn_backbone(
        name,
        pretrained=weights_backbone is not None,
        out_indices=(1, 2, 3, 4) if two_stages else (2, 3, 4),
        trainable_stages=None if trainable == 5 else trainable,
        norm="sync",
        out_channels=CHANNELS,
        extra_blocks=None if two_stages else LastLevelP6P7(CHANNELS, CHANNELS),
    )
    data = dict(image_mean=backbone.image_mean, image_std=backbone.image_std)
    return DETECTORS[detector](backbone, num_classes, **data, **kwargs)


def register() -> list[str]:
    """Add the models to torchvision's, once; their names."""
    networks = [name for name in timm.list_models(module="resattn") if not name.endswith("_cifar")]
    names = {f"{detector}_{name}_fpn": (detector, name) for detector in DETECTORS for name in networks}
    for key in names.keys() - set(torchvision.models.list_models()):
        register_model(key)(partial(build, *names[key]))
    return list(names)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(COMMAND, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("script", type=Path, metavar="TRAIN.PY")
    parser.add_argument("options", nargs=argparse.REMAINDER, metavar="OPTION")
    args = parser.parse_args(argv)
    if not args.script.is_file():
        parser.error(f"there is no script {args.script}")
    register()
    sys.argv = [str(args.script), *args.options]
    sys.path.insert(0, str(args.script.resolve().parent))  # of the modules that it imports
    runpy.run_path(str(args.script), run_name="__main__")


if __name__ == "__main__":
    main()
