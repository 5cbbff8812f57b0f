"""The two detectors and the classifier that they may start from, sized for digits on images of 64 pixels."""

from functools import partial
from typing import Any

import timm
from torch import nn
from torchvision.models.detection import FasterRCNN, RetinaNet
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.faster_rcnn import FastRCNNConvFCHead, FastRCNNPredictor
from torchvision.models.detection.retinanet import RetinaNetHead

from benchmarks.detection.data import IMG_SIZE
from timm_resattn import fpn_backbone

# Attention-56 in three stages of an eighth of its width: 0.2M parameters
MODEL = "resattn56"
MODEL_ARGS: dict[str, Any] = dict(
    depths=(1, 1, 1), widths=(32, 64, 128), closing_units=(0, 0, 1), mask_pools=(2, 1, 1), stem_chs=16
)
DETECTORS = ("retinanet", "faster_rcnn")
NUM_CLASSES = 11  # ten digits; 0 is the background
OUT_CHANNELS = 48
HIDDEN = 256
ANCHOR_SIZES = ((10, 13), (17, 21), (26, 32), (40, 50))  # for maps of strides 4, 8, 16 and 32
ANCHOR_SHAPES = (1.0, 1.7)  # height by width


def classifier() -> nn.Module:
    """The network, for ten classes."""
    return timm.create_model(MODEL, num_classes=NUM_CLASSES - 1, **MODEL_ARGS)


def build(detector: str, weights: str | None = None) -> nn.Module:
    """A detector on the stages of the network; everything trains, norms too.

    Args:
        detector: One of `DETECTORS`.
        weights: File of the classifier's weights; None for random ones.
    """
    backbone = fpn_backbone(
        MODEL,
        pretrained=weights is not None,
        out_indices=(1, 2, 3),
        norm="batch",
        out_channels=OUT_CHANNELS,
        norm_layer=nn.BatchNorm2d,
        pretrained_cfg_overlay=None if weights is None else dict(file=weights, num_classes=NUM_CLASSES - 1),
        **MODEL_ARGS,
    )
    anchors = AnchorGenerator(ANCHOR_SIZES, (ANCHOR_SHAPES,) * len(ANCHOR_SIZES))
    data = dict(image_mean=backbone.image_mean, image_std=backbone.image_std, min_size=IMG_SIZE, max_size=IMG_SIZE)
    norm_layer = partial(nn.GroupNorm, 8)
    if detector == "retinanet":
        head = RetinaNetHead(OUT_CHANNELS, anchors.num_anchors_per_location()[0], NUM_CLASSES, norm_layer)
        return RetinaNet(backbone, NUM_CLASSES, anchor_generator=anchors, head=head, **data)
    return FasterRCNN(
        backbone,
        rpn_anchor_generator=anchors,
        rpn_pre_nms_top_n_train=300,
        rpn_post_nms_top_n_train=100,
        rpn_pre_nms_top_n_test=200,
        rpn_post_nms_top_n_test=30,
        rpn_batch_size_per_image=64,
        box_head=FastRCNNConvFCHead((OUT_CHANNELS, 7, 7), [OUT_CHANNELS] * 2, [HIDDEN], norm_layer),
        box_predictor=FastRCNNPredictor(HIDDEN, NUM_CLASSES),
        box_batch_size_per_image=32,
        **data,
    )
