"""`timm-resattn convert`: every kind of checkpoint becomes a folder that timm loads, or one sentence and nothing."""

import argparse
import json
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from caffe_oracle import caffe_forward, random_blobs
from converting import SMALL, SMALL_ARGS, assert_nothing_written, run, save_small, small
from donors import small_resnetv2, small_resnext
from helpers import images, live_in, relative_error
from pytorchcv.model_provider import get_model
from safetensors.torch import load_file, save_file

from timm_resattn import convert as convert_module
from timm_resattn.convert import convert


@pytest.fixture
def source(tmp_path):
    return save_small(tmp_path)


def load(folder):
    assert sorted(path.name for path in folder.iterdir()) == ["README.md", "config.json", "model.safetensors"]
    return timm.create_model(f"local-dir:{folder}", pretrained=True).eval()


def config(folder):
    return json.loads((folder / "config.json").read_text())


def same_function(folder, model, in_chans=3):
    x = torch.randn(2, in_chans, 32, 32)
    with torch.inference_mode():
        assert torch.equal(load(folder)(x), model(x))


# --- what goes in ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".pth", ".pth.tar", ".pt", ".bin", ".safetensors"])
def test_own_weights_in_every_file_format(tmp_path, suffix):
    model = small()
    path = tmp_path / f"source{suffix}"
    if suffix == ".safetensors":
        save_file(model.state_dict(), path)
    else:
        torch.save({"state_dict": {f"module.{k}": v for k, v in model.state_dict().items()}, "epoch": 3}, path)
    folder = convert(path, tmp_path / "new" / "folder", "resattn56_cifar", model_kwargs=SMALL)
    assert folder == tmp_path / "new" / "folder"
    assert len({path.stat().st_mode for path in folder.iterdir()}) == 1  # weights for other users too
    same_function(folder, model)
    saved = load_file(folder / "model.safetensors")
    assert saved.keys() == model.state_dict().keys()
    assert all(torch.equal(tensor, saved[name]) for name, tensor in model.state_dict().items())


def test_command_and_config(tmp_path, capsys, source):
    code, out, err = run(capsys, source, tmp_path / "out", "--model", "resattn56_cifar", *SMALL_ARGS)
    assert (code, err) == (0, "")
    assert str(tmp_path / "out") in out
    written = config(tmp_path / "out")
    assert written["architecture"] == "resattn56_cifar"
    assert written["num_classes"] == written["pretrained_cfg"]["num_classes"] == 5
    assert written["pretrained_cfg"]["input_size"] == [3, 32, 32]
    assert written["pretrained_cfg"]["mean"] == [0.4914, 0.4822, 0.4465]
    assert written["model_args"]["depths"] == [1, 1]
    assert "label_names" not in written
    assert "num_classes" not in written["model_args"]  # transformers would give it twice
    # nothing of the registered weights' provenance, and no path of this machine
    assert not {"tag", "license", "description", "origin_url", "file"} & written["pretrained_cfg"].keys()
    assert str(tmp_path) not in json.dumps(written)
    card = (tmp_path / "out" / "README.md").read_text()
    assert card.startswith("---\n") and "\nlibrary_name: timm\nlicense: unknown\n---\n# Model card for out\n" in card
    assert "source.pth" in card


def test_other_channels_and_label_names(tmp_path, capsys):
    model = small(num_classes=2, in_chans=1)
    torch.save(model.state_dict(), tmp_path / "source.pt")
    names = ["--label-names", "cat", "dog", "--num-classes", 2]
    code, _, err = run(
        capsys, tmp_path / "source.pt", tmp_path / "out", "--model", "resattn56_cifar", *SMALL_ARGS, *names
    )
    assert (code, err) == (0, "")
    written = config(tmp_path / "out")
    assert written["label_names"] == ["cat", "dog"]
    assert written["pretrained_cfg"]["input_size"] == [1, 32, 32]
    assert len(written["pretrained_cfg"]["mean"]) == 1
    same_function(tmp_path / "out", model, in_chans=1)
    assert list(load(tmp_path / "out").pretrained_cfg["label_names"]) == ["cat", "dog"]


def test_without_classifier(tmp_path, source):
    convert(source, tmp_path / "out", "resattn56_cifar", model_kwargs=SMALL, num_classes=0)
    headless = load(tmp_path / "out")
    assert headless(torch.randn(1, 3, 32, 32)).shape == (1, 32)
    torch.save(headless.state_dict(), tmp_path / "headless.pth")
    convert(tmp_path / "headless.pth", tmp_path / "again", "resattn56_cifar", model_kwargs=SMALL)
    assert config(tmp_path / "again")["num_classes"] == 0


def test_training_checkpoint_brings_its_arguments(tmp_path):
    """The masks' activation leaves no trace in the weights, and the mean none at all."""
    model, ema = small(attn_act="spatial"), small(attn_act="spatial")
    live_in(ema, seed=5)
    args = argparse.Namespace(model="resattn56_cifar", model_kwargs=dict(SMALL, attn_act="spatial"), gp=None)
    args.mean, args.std, args.img_size, args.crop_pct = [0.5], [0.25], 40, 0.9
    content = {"state_dict": model.state_dict(), "state_dict_ema": ema.state_dict(), "args": args}
    torch.save(content, tmp_path / "best.pth.tar")
    convert(tmp_path / "best.pth.tar", tmp_path / "out", "resattn56_cifar")
    same_function(tmp_path / "out", ema)
    cfg = config(tmp_path / "out")["pretrained_cfg"]
    assert (cfg["mean"], cfg["std"]) == ([0.5] * 3, [0.25] * 3)
    assert (cfg["input_size"], cfg["crop_pct"]) == ([3, 40, 40], 0.9)
    with pytest.raises(ValueError, match="is one of resattn56_cifar, not of resattn92_cifar"):
        convert(tmp_path / "best.pth.tar", tmp_path / "other", "resattn92_cifar")


@pytest.mark.parametrize(
    ("make_donor", "model_kwargs"),
    [
        (small_resnetv2, dict(widths=(32, 64, 128, 256), stem_chs=16)),
        (
            small_resnext,
            dict(widths=(32, 64, 128, 256), unit_type="postact", groups=4, bottle_ratio=0.5),
        ),
    ],
)
@pytest.mark.parametrize("kind", ["auto", "donor"])
def test_donor(tmp_path, make_donor, model_kwargs, kind):
    donor = make_donor(layers=(2, 2, 2, 2))
    save_file(donor.state_dict(), tmp_path / "donor.safetensors")
    convert(tmp_path / "donor.safetensors", tmp_path / "out", "resattn92", kind, model_kwargs)
    x = images(64)
    with torch.inference_mode():
        assert relative_error(load(tmp_path / "out")(x), donor(x)) < 1e-5
    assert "The masks are untrained" in (tmp_path / "out" / "README.md").read_text()
    assert config(tmp_path / "out")["num_classes"] == 10


def test_pytorchcv(tmp_path):
    reference = live_in(get_model("resattnet56", num_classes=7))
    torch.save({"state_dict": reference.state_dict()}, tmp_path / "resattnet56.pth")
    convert(tmp_path / "resattnet56.pth", tmp_path / "out", "resattn56_dskip", "pytorchcv")
    x = torch.randn(1, 3, 224, 224)
    with torch.inference_mode():
        assert relative_error(load(tmp_path / "out")(x), reference(x)) < 1e-5


def test_caffe_blobs(tmp_path, capsys):
    blobs = random_blobs("Attention-56", seed=1)
    arrays = {f"{layer}:{i}": blob.numpy() for layer in blobs for i, blob in enumerate(blobs[layer])}
    np.savez(tmp_path / "caffe.npz", **arrays)
    code, _, err = run(capsys, tmp_path / "caffe.npz", tmp_path / "out", "--model", "resattn56", "--from", "caffe-npz")
    assert (code, err) == (0, "")
    assert config(tmp_path / "out")["model_args"]["pool_mode"] == "ceil"
    x = torch.randn(1, 3, 160, 160)
    with torch.inference_mode():
        assert relative_error(load(tmp_path / "out")(x), caffe_forward("Attention-56", blobs, x)) < 1e-5


def test_caffe_blobs_of_the_authors_fork(tmp_path, capsys):
    blobs = random_blobs("Attention-56", seed=1)
    arrays = {f"{layer}:{i}": blob.numpy() for layer in blobs for i, blob in enumerate(blobs[layer])}
    np.savez(tmp_path / "caffe.npz", **arrays)
    forked = {key: (value + 1e-5) ** -0.5 if "/bn:3" in key else value for key, value in arrays.items()}
    np.savez(tmp_path / "forked.npz", **forked)
    for name, options in (("caffe", []), ("forked", ["--inverse-std"])):
        argv = (tmp_path / f"{name}.npz", tmp_path / name, "--model", "resattn56", *options)
        assert run(capsys, *argv)[0] == 0
    weights = [load_file(tmp_path / name / "model.safetensors") for name in ("caffe", "forked")]
    assert all(relative_error(weights[1][key], value) < 1e-5 for key, value in weights[0].items() if value.any())
    assert config(tmp_path / "forked")["model_args"]["pool_mode"] == "ceil"
    code, _, err = run(
        capsys, tmp_path / "caffe" / "model.safetensors", tmp_path / "out", "--model", "resattn56", "--inverse-std"
    )
    assert code == 2 and "only blobs of the authors' Caffe hold inverse deviations" in err


# --- all of the folder or nothing -----------------------------------------------------------------------------


def test_existing_folders(tmp_path, capsys, source):
    (tmp_path / "empty").mkdir()
    place = (tmp_path / "empty").stat()
    convert(source, tmp_path / "empty", "resattn56_cifar", model_kwargs=SMALL)
    load(tmp_path / "empty")
    assert (tmp_path / "empty").stat().st_ino == place.st_ino, "a mounted folder can't be replaced"
    names = sorted(path.name for path in (tmp_path / "empty").iterdir())
    assert names == ["README.md", "config.json", "model.safetensors"]
    before = (tmp_path / "empty" / "model.safetensors").stat()
    for taken in (tmp_path / "empty", source):
        code, _, err = run(capsys, source, taken, "--model", "resattn56_cifar", *SMALL_ARGS)
        assert (code, err.count("\n")) == (2, 1)
        assert "exists and is not an empty folder" in err
    assert (tmp_path / "empty" / "model.safetensors").stat() == before
    code, _, err = run(capsys, source, source / "below", "--model", "resattn56_cifar", *SMALL_ARGS)
    assert (code, err.count("\n")) == (2, 1)


def fail(*args, **kwargs):
    raise OSError("No space left on device")


def lose_a_bit(model, folder, **kwargs):
    timm.models.save_for_hf(model, folder, **kwargs)
    path = Path(folder, "model.safetensors")
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))


def lose_the_end(model, folder, **kwargs):
    timm.models.save_for_hf(model, folder, **kwargs)
    path = Path(folder, "model.safetensors")
    path.write_bytes(path.read_bytes()[:-1])


def lose_a_tensor(model, folder, **kwargs):
    timm.models.save_for_hf(model, folder, **kwargs)
    path = Path(folder, "model.safetensors")
    tensors = load_file(path)
    del tensors["norm.weight"]
    save_file(tensors, path)


@pytest.mark.parametrize(
    ("step", "broken", "message"),
    [
        ("save_for_hf", fail, "No space left"),
        ("converted_card", fail, "No space left"),
        ("create_model", None, "read back"),
        ("save_for_hf", lose_a_bit, "read back differs from what was written: "),
        ("save_for_hf", lose_the_end, "could not be written"),
        ("save_for_hf", lose_a_tensor, "read back differs from what was written: norm.weight"),
    ],
)
def test_a_failure_leaves_nothing(tmp_path, capsys, monkeypatch, source, step, broken, message):
    if broken is None:  # timm loads something else than what the file holds

        def broken(name, *args, **kwargs):
            model = timm.create_model(name, *args, **kwargs)
            if name.startswith("local-dir:"):
                model.head.fc.bias.data += 1
            return model

    monkeypatch.setattr(convert_module, step, broken)
    code, out, err = run(capsys, source, tmp_path / "new" / "out", "--model", "resattn56_cifar", *SMALL_ARGS)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert message in err
    assert_nothing_written(tmp_path, source.name)
    monkeypatch.undo()
    convert(source, tmp_path / "new" / "out", "resattn56_cifar", model_kwargs=SMALL)
