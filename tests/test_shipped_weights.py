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


def fine_tuned_accuracy(name, pretrained, seed):
    """Of all of a network after 12 steps of AdamW at 1e-3 on 20 faces and 20 other patches of photographs, on the rest.

    The images are scikit-image's, 25x25; the seed draws the split and what is fresh in the network.
    """
    data = pytest.importorskip("skimage.data")
    patches = torch.from_numpy(np.asarray(data.lfw_subset())).float()[:, None].expand(-1, 3, -1, -1)
    torch.manual_seed(seed)
    model = timm.create_model(name, pretrained=pretrained, num_classes=2).train()
    mean, std = (torch.tensor(model.pretrained_cfg[key]).view(1, 3, 1, 1) for key in ("mean", "std"))
    images = (F.interpolate(patches, size=(32, 32), mode="bilinear") - mean) / std
    labels = (torch.arange(200) < 100).long()
    order = torch.randperm(100, generator=torch.Generator().manual_seed(seed))
    train, test = (torch.cat([part, 100 + part]) for part in (order[:20], order[20:]))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.05)
    model, images = model.to(memory_format=torch.channels_last), images.contiguous(memory_format=torch.channels_last)
    for _ in range(12):
        with torch.autocast("cpu", torch.bfloat16):
            loss = F.cross_entropy(model(images[train]), labels[train])
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        return (model.eval()(images[test]).argmax(1) == labels[test]).float().mean().item()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["resattn56_cifar", "resattn92_cifar"])
def test_fine_tuning_beats_training_from_scratch(name):
    """Three seeds; from scratch their spread is large, from the weights small."""
    pretrained, scratch = (
        [fine_tuned_accuracy(name, pretrained, seed) for seed in range(3)] for pretrained in (True, False)
    )
    assert min(pretrained) > 0.9
    assert sum(pretrained) / 3 > sum(scratch) / 3 + 0.05
