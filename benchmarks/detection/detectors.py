"""The two detectors, sized for digits on images of 96 pixels."""

from typing import Any

from torch import nn
from torchvision.models.detection import FasterRCNN, RetinaNet
from torchvision.models.detection.anchor_utils import AnchorGenerator

from benchmarks.detection.data import IMG_SIZE
from timm_resattn import fpn_backbone

MODEL = "resattn56_cifar"
DETECTORS = ("retinanet", "faster_rcnn")
NUM_CLASSES = 11  # ten digits; 0 is the background
OUT_CHANNELS = 64
ANCHOR_SIZES = ((12, 15), (19, 24), (30, 38))  # for maps of strides 2, 4 and 8
ANCHOR_SHAPES = (1.0, 1.6)  # height by width


def build(detector: str, pretrained: bool) -> nn.Module:
    """A detector on stages 2 and 3 of `MODEL`; everything trains, norms too."""
    backbone = fpn_backbone(MODEL, pretrained, out_indices=(2, 3), norm="batch", out_channels=OUT_CHANNELS)
    anchors = AnchorGenerator(ANCHOR_SIZES, (ANCHOR_SHAPES,) * len(ANCHOR_SIZES))
    common: dict[str, Any] = dict(
        num_classes=NUM_CLASSES,
        min_size=IMG_SIZE,
        max_size=IMG_SIZE,
        image_mean=backbone.image_mean,
        image_std=backbone.image_std,
    )
    if detector == "retinanet":
        return RetinaNet(backbone, anchor_generator=anchors, **common)
    return FasterRCNN(
        backbone,
        rpn_anchor_generator=anchors,
        rpn_pre_nms_top_n_train=500,
        rpn_post_nms_top_n_train=200,
        rpn_pre_nms_top_n_test=300,
        rpn_post_nms_top_n_test=50,
        rpn_batch_size_per_image=128,
        box_batch_size_per_image=64,
        **common,
    )
