"""The CIFAR networks that ship: they load without a network and err as often as the manifest says."""

import importlib.util
import socket
from pathlib import Path

import pytest
import timm
import torch
from helpers import images
from timm.utils import reparameterize_model

import timm_resattn  # noqa: F401  registers the models
from timm_resattn.attention import AttentionModule
from timm_resattn.shipped import read_manifest

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"
NAMES = [file.removesuffix(".safetensors") for file, entry in read_manifest().items() if entry["dataset"] == "CIFAR-10"]


@pytest.fixture(autouse=True)
def _no_network(monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("asked for the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)


@pytest.fixture(scope="module")
def cifar10_test():
    """Test images as the networks' input, ``(10000, 3, 32, 32)``, and labels ``(10000,)``."""
    if not (SHARED / "unpack_cifar.py").is_file():
        pytest.skip(f"{SHARED} with CIFAR-10 is not there")
    spec = importlib.util.spec_from_file_location("unpack_cifar", SHARED / "unpack_cifar.py")
    unpack_cifar = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(unpack_cifar)
    pixels, labels = unpack_cifar.load(SHARED / "cifar10", "test")
    return torch.from_numpy(pixels).movedim(-1, 1), torch.from_numpy(labels).long()


def test_names():
    assert {name.partition(".")[0] for name in NAMES} == {"resattn56_cifar", "resattn92_cifar"}


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_error_is_the_manifests(name, cifar10_test):
    model = timm.create_model(name, pretrained=True).eval().to(memory_format=torch.channels_last)
    model = reparameterize_model(model)  # the same logits, and faster
    cfg = timm.data.resolve_model_data_config(model)
    mean, std = (torch.tensor(cfg[key]).view(3, 1, 1) for key in ("mean", "std"))
    right = 0
    with torch.inference_mode():
        for batch, target in zip(*(tensor.split(500) for tensor in cifar10_test), strict=True):
            right += int((model((batch / 255 - mean) / std).argmax(1) == target).sum())
    entry = read_manifest()[f"{name}.safetensors"]
    assert right / 100 == pytest.approx(entry["accuracy"], abs=0.05)


def test_classes_are_those_of_the_images(cifar10_test):
    classes = tuple((SHARED / "cifar10" / "classes.txt").read_text().split())
    assert all(timm.get_pretrained_cfg(name).label_names == classes for name in NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_masks_differ_between_places_and_images(name):
    model = timm.create_model(name, pretrained=True).eval()
    masks = []
    for module in model.modules():
        if isinstance(module, AttentionModule):
            module.mask.register_forward_hook(lambda module, args, mask: masks.append(mask))
    with torch.inference_mode():
        model(images(32, batch=8))
    assert len(masks) == sum(isinstance(module, AttentionModule) for module in model.modules())
    for mask in masks:
        assert mask.std((2, 3)).mean() > 0.01 and mask.std(0).mean() > 0.01


@pytest.mark.parametrize("name", NAMES)
def test_no_unit_of_the_trunk_is_dead(name):
    """Attention-92 once shipped with every unit of its added modules dead: their norms let nothing through."""
    dead = pytest.importorskip("benchmarks.cifar.dead").dead_channels(
        timm.create_model(name, pretrained=True), images(32, batch=16)
    )
    inner = {act: mask for act, mask in dead.items() if ".mask." not in act}
    assert len(inner) > 50
    assert not {act: f"{mask.sum()} of {len(mask)}" for act, mask in inner.items() if mask.float().mean() > 0.5}


@pytest.mark.parametrize("name", NAMES)
def test_they_are_a_start_for_other_classes_and_for_features(name):
    model = timm.create_model(name, pretrained=True)
    other = timm.create_model(name, pretrained=True, num_classes=7, in_chans=1)
    assert other.head.fc.weight.shape[0] == 7
    assert torch.equal(other.stages[2].blocks[1].post[0].conv1.weight, model.stages[2].blocks[1].post[0].conv1.weight)
    backbone = timm.create_model(name, pretrained=True, features_only=True).eval()
    x = images(32)
    with torch.inference_mode():
        maps = model.eval().forward_intermediates(x, intermediates_only=True)
        assert all(torch.equal(a, b) for a, b in zip(backbone(x), maps, strict=True))
