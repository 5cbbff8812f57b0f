"""torchvision's detectors on `fpn_backbone`: images of two odd sizes in one batch, forward, backward and detections."""

import pytest
import torch
from torchvision.models.detection import FCOS, FasterRCNN, MaskRCNN, RetinaNet
from torchvision.ops.feature_pyramid_network import LastLevelP6P7

from timm_resattn import fpn_backbone

DETECTORS = [FasterRCNN, MaskRCNN, RetinaNet, FCOS]
RCNN = (FasterRCNN, MaskRCNN)
CHANNELS = 32  # FCOS has norms of 32 groups
NETWORKS = {
    "resattn56": dict(widths=(16, 32, 48, 64), stem_chs=8),
    "resattn50": dict(widths=(16, 32, 48, 64), stem_chs=8),
    "resattn56_cifar": dict(widths=(16, 24, 32)),
}


def detector_on(detector, name, **options):
    """The detector with its own default anchors, which are for five maps."""
    levels = (1, 2, 3, 4) if detector in RCNN else (2, 3, 4)
    if name == "resattn56_cifar":
        levels = tuple(level - 1 for level in levels)  # 0 is the stem's
    extra = None if detector in RCNN else LastLevelP6P7(CHANNELS, CHANNELS)
    kwargs = dict(NETWORKS[name], **options)
    backbone = fpn_backbone(name, out_indices=levels, out_channels=CHANNELS, extra_blocks=extra, **kwargs)
    data = dict(image_mean=backbone.image_mean, image_std=backbone.image_std)
    return detector(backbone, num_classes=4, min_size=48, max_size=75, **data)


def batch():
    generator = torch.Generator().manual_seed(1)
    images = [torch.rand(3, 65, 97, generator=generator), torch.rand(3, 81, 64, generator=generator)]
    boxes = torch.tensor([[4.0, 6.0, 40.0, 38.0], [20.0, 20.0, 61.0, 60.0]])
    targets = [
        {"boxes": boxes, "labels": torch.tensor([1, 3]), "masks": torch.ones(2, *image.shape[1:], dtype=torch.uint8)}
        for image in images
    ]
    targets[1] = {key: value[:0] for key, value in targets[1].items()}  # an image of nothing
    return images, targets


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("detector", DETECTORS, ids=lambda cls: cls.__name__)
def test_detector(detector, name):
    model = detector_on(detector, name, norm="batch").train()
    images, targets = batch()
    losses = model(images, targets)
    assert all(loss.isfinite() for loss in losses.values())
    sum(losses.values()).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.backbone.body.parameters())
    with torch.no_grad():
        found = model.eval()(images)
    for image, detections in zip(images, found, strict=True):
        boxes = detections["boxes"]
        assert boxes.shape[1] == 4 and (boxes >= 0).all()
        assert (boxes[:, 2] <= image.shape[2] + 1e-3).all() and (boxes[:, 3] <= image.shape[1] + 1e-3).all()


@pytest.mark.parametrize("detector", DETECTORS, ids=lambda cls: cls.__name__)
def test_frozen_stages_need_no_gradient(detector):
    model = detector_on(detector, "resattn56", trainable_stages=1).train()
    sum(model(*batch()).values()).backward()
    trained = {name.partition(".")[0] for name, p in model.backbone.body.named_parameters() if p.grad is not None}
    assert trained == {"stages_3"}
