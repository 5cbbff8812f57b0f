"""Weights that ship are what the manifest says, and the check that says so can see every fault."""

import hashlib
import json

import pytest
import timm
import torch
from safetensors.torch import save_file
from timm.models import PretrainedCfg

from benchmarks.release import check
from benchmarks.release.check import check_weights
from timm_resattn.shipped import read_manifest

NAME = "resattn56_cifar.made_up"
FILE = f"{NAME}.safetensors"
ENTRY = dict(accuracy=95.0, dataset="CIFAR-10", record="benchmarks/results/x", commit="abc", schedule="1 epoch", seed=0)


def test_weights_that_ship():
    assert check_weights() == []


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A made-up folder of weights without fault, under a made-up pretrained name."""
    save(tmp_path, timm.create_model("resattn56_cifar").state_dict())
    cfg = PretrainedCfg(file=str(tmp_path / FILE), num_classes=10, label_names=tuple("abcdefghij"))
    real_cfg, real_list = check.get_pretrained_cfg, check.list_models
    monkeypatch.setattr(check, "get_pretrained_cfg", lambda name: cfg if name == NAME else real_cfg(name))
    monkeypatch.setattr(check, "list_models", lambda **kwargs: [*real_list(**kwargs), NAME])
    monkeypatch.setattr(check, "create_model", lambda name: timm.create_model(name.partition(".")[0]))
    assert check_weights(tmp_path) == []
    return tmp_path


def save(folder, tensors, **fields):
    save_file(tensors, folder / FILE)
    content = (folder / FILE).read_bytes()
    entry = dict(ENTRY, sha256=hashlib.sha256(content).hexdigest(), size=len(content), **fields)
    (folder / "manifest.json").write_text(json.dumps({FILE: entry}))


def change_entry(folder, **fields):
    manifest = read_manifest(folder)
    manifest[FILE].update(fields)
    (folder / "manifest.json").write_text(json.dumps(manifest))


def change_a_byte(folder):
    content = bytearray((folder / FILE).read_bytes())
    content[-1] ^= 1
    (folder / FILE).write_bytes(content)


def save_other_model(folder):
    save(folder, timm.create_model("resattn56_cifar", num_classes=9).state_dict())


def save_nan(folder):
    tensors = timm.create_model("resattn56_cifar").state_dict()
    tensors["head.fc.bias"][3] = torch.nan
    save(folder, tensors)


@pytest.mark.parametrize(
    ("spoil", "problems"),
    [
        (change_a_byte, [f"{FILE} has another SHA-256"]),
        (lambda folder: (folder / FILE).write_bytes(b"x"), [f"{FILE} has 1 bytes, not "]),
        (lambda folder: (folder / FILE).unlink(), [f"{FILE} is missing"]),
        (lambda folder: (folder / "notes.txt").touch(), ["notes.txt is not in the manifest"]),
        (lambda folder: (folder / "m.t.safetensors").touch(), ["m.t.safetensors is not in the manifest"]),
        (
            lambda folder: (folder / "manifest.json").write_text("{}"),
            [f"{FILE} is not in the manifest", f"{FILE} is not in the manifest, but is the file of {NAME}"],
        ),
        (lambda folder: change_entry(folder, seed=None), [f"{FILE} has an entry of accuracy, "]),
        (lambda folder: change_entry(folder, record=""), [f"{FILE} has an entry of accuracy, "]),
        (lambda folder: change_entry(folder, note="x"), [f"{FILE} has an entry of accuracy, "]),
        (save_other_model, [f"{FILE} is not fit to ship: "]),
        (save_nan, [f"{FILE} is not fit to ship: The weights are damaged: head.fc.bias is not finite"]),
    ],
)
def test_faults_are_reported(folder, spoil, problems):
    spoil(folder)
    found = check_weights(folder)
    assert len(found) == len(problems)
    assert all(line.startswith(problem) for line, problem in zip(found, problems, strict=True))


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (dict(file="elsewhere.safetensors"), f"{FILE} is not the file of the pretrained name {NAME}"),
        (dict(label_names=None), f"{FILE} is for 10 classes, but the cfg names 0"),
        (dict(label_names=("a", "b")), f"{FILE} is for 10 classes, but the cfg names 2"),
    ],
)
def test_faults_of_the_cfg_are_reported(folder, change, problem):
    cfg = check.get_pretrained_cfg(NAME)
    for key, value in change.items():
        setattr(cfg, key, value)
    assert check_weights(folder) == [problem]


def test_unregistered_names_are_reported(folder, monkeypatch):
    monkeypatch.undo()
    assert check_weights(folder) == [f"{FILE} is not the file of the pretrained name {NAME}"]
