"""Weights that ship: each is the file of its pretrained name, read only as it was shipped, and a good start."""

import shutil

import numpy as np
import pytest
import timm
import torch
import torch.nn.functional as F

import timm_resattn  # noqa: F401  registers the models
from timm_resattn import shipped
from timm_resattn.shipped import WEIGHTS, read_manifest, shipped_file


def test_every_file_cfg_is_a_shipped_file():
    files = {
        name: cfg.file
        for name in timm.list_models(module="resattn", pretrained=True)
        if (cfg := timm.models.get_pretrained_cfg(name)).file
    }
    assert files == {name.removesuffix(".safetensors"): str(WEIGHTS / name) for name in read_manifest()}
    assert all(file == shipped_file(name) for name, file in files.items())


def test_a_flipped_bit_is_refused(tmp_path, monkeypatch):
    shutil.copytree(WEIGHTS, tmp_path / "weights")
    path = tmp_path / "weights" / "resattn56_cifar.cifar10.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 64
    path.write_bytes(content)
    monkeypatch.setattr(shipped, "WEIGHTS", path.parent)
    overlay = dict(file=str(path))
    with pytest.raises(ValueError, match="is damaged: install timm_resattn again"):
        timm.create_model("resattn56_cifar", pretrained=True, pretrained_cfg_overlay=overlay)
    content[-1] ^= 64
    path.write_bytes(content)
    timm.create_model("resattn56_cifar", pretrained=True, pretrained_cfg_overlay=overlay)


def faces():
    """scikit-image's 100 faces and 100 other patches, 25x25, as the networks' input: 40 to train, 160 to test."""
    data = pytest.importorskip("skimage.data")
    patches = torch.from_numpy(np.asarray(data.lfw_subset())).float()
    images = F.interpolate(patches[:, None].expand(-1, 3, -1, -1), size=(32, 32), mode="bilinear")
    labels = (torch.arange(200) < 100).long()
    order = torch.randperm(200, generator=torch.Generator().manual_seed(0))
    images = (images - 0.45) / 0.25
    return images[order[:40]], labels[order[:40]], images[order[40:]], labels[order[40:]]


def fine_tuned_accuracy(name, pretrained, seed):
    """Of a fresh classifier on a frozen network, after 40 steps of AdamW at 1e-3."""
    images, labels, test_images, test_labels = faces()
    torch.manual_seed(seed)
    model = timm.create_model(name, pretrained=pretrained, num_classes=2)
    if not pretrained:  # its norms have seen no image yet
        for module in model.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.momentum = None
        with torch.no_grad():
            model(images)
    with torch.no_grad():
        features, test_features = (
            model.forward_head(model.eval().forward_features(x), pre_logits=True) for x in (images, test_images)
        )
    classifier = model.get_classifier()
    optimizer = torch.optim.AdamW(classifier.parameters(), lr=1e-3)
    for _ in range(40):
        F.cross_entropy(classifier(features), labels).backward()
        optimizer.step()
        optimizer.zero_grad()
    return (classifier(test_features).argmax(1) == test_labels).float().mean().item()


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("name", ["resattn56_cifar", "resattn92_cifar"])
def test_a_fresh_classifier_learns_faster_than_from_scratch(name, seed):
    """With the pooled features as training left them, of size 0.18 and 0.14, it reached 54% and 73%."""
    pretrained, scratch = (fine_tuned_accuracy(name, pretrained, seed) for pretrained in (True, False))
    assert pretrained > 0.9
    assert pretrained > scratch + 0.2
