"""`timm-resattn convert`: every kind of checkpoint becomes a folder that timm loads, or one sentence and nothing."""

import argparse
import io
import json
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from caffe_oracle import caffe_forward, random_blobs
from donors import small_resnetv2, small_resnext
from helpers import images, live_in, relative_error
from pytorchcv.model_provider import get_model
from safetensors.torch import load_file, save_file

from timm_resattn import convert as convert_module
from timm_resattn.cli import main
from timm_resattn.convert import convert

SMALL = dict(depths=(1, 1), widths=(16, 32), closing_units=(0, 1), mask_pools=(2, 1), stem_chs=8)
SMALL_ARGS = ["--model-kwargs", *(f"{key}={value}" for key, value in SMALL.items())]


def small(num_classes=5, **kwargs):
    return live_in(timm.create_model("resattn56_cifar", num_classes=num_classes, **{**SMALL, **kwargs}))


@pytest.fixture
def source(tmp_path):
    path = tmp_path / "source.pth"
    torch.save(small().state_dict(), path)
    return path


def load(folder):
    assert sorted(path.name for path in folder.iterdir()) == ["README.md", "config.json", "model.safetensors"]
    return timm.create_model(f"local-dir:{folder}", pretrained=True).eval()


def config(folder):
    return json.loads((folder / "config.json").read_text())


def same_function(folder, model, in_chans=3):
    x = torch.randn(2, in_chans, 32, 32)
    with torch.inference_mode():
        assert torch.equal(load(folder)(x), model(x))


def run(capsys, *args):
    """Exit code, stdout and stderr of the command."""
    code = main(["convert", *map(str, args)])
    return code, *capsys.readouterr()


def assert_nothing_written(tmp_path, *kept):
    """Neither the folder nor anything temporary."""
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(kept)


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
    assert card.startswith("---\nlibrary_name: timm\n")
    assert "# out\n" in card
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


# --- what stays out -------------------------------------------------------------------------------------------


class Malicious:
    def __init__(self, command):
        self.command = command

    def __reduce__(self):
        return os.system, (self.command,)


def zipped(content):
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("suffix", [".pth", ".pth.tar", ".pt", ".bin", ".npz", ".safetensors"])
@pytest.mark.parametrize("dump", [zipped, lambda content: pickle.dumps(content, 2), pickle.dumps])
def test_code_in_a_pickle_is_not_run(tmp_path, capsys, suffix, dump):
    marker = tmp_path / "marker"
    path = tmp_path / f"evil{suffix}"
    path.write_bytes(dump({"state_dict": {"head.fc.weight": Malicious(f"touch '{marker}'")}}))
    code, out, err = run(capsys, path, tmp_path / "out", "--model", "resattn56_cifar")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "evil" in err
    assert_nothing_written(tmp_path, path.name)
    # the file is what it seems to be: unpickling it in earnest runs the command
    if dump is not zipped:
        pickle.loads(path.read_bytes())
        assert marker.exists()


def test_code_in_a_pickled_array_is_not_run(tmp_path, capsys):
    marker = tmp_path / "marker"
    evil = np.empty(1, dtype=object)
    evil[0] = Malicious(f"touch '{marker}'")
    np.savez(tmp_path / "evil.npz", **{"conv1:0": evil})
    code, _, err = run(capsys, tmp_path / "evil.npz", tmp_path / "out", "--model", "resattn56")
    assert (code, err.count("\n")) == (2, 1)
    assert_nothing_written(tmp_path, "evil.npz")


def write(content):
    return lambda path: path.write_bytes(content)


def save(content):
    return lambda path: torch.save(content, path)


def savez(**arrays):
    return lambda path: np.savez(path, **arrays)


@pytest.mark.parametrize(
    ("name", "make", "message"),
    [
        ("none.pth", lambda path: None, "is not there"),
        ("folder.pth", lambda path: path.mkdir(), "is no file"),
        ("text.pth", write(b"# hello\n"), "is no file of torch.save"),
        ("empty.pth", write(b""), "empty.pth is empty."),
        ("short.pth", write(zipped({"x": torch.zeros(1000)})[:1000]), "is damaged or not complete"),
        ("short.safetensors", write(b"\x10\0\0\0\0\0\0\0{"), "is no whole safetensors file"),
        ("short.npz", write(b"PK\3\4"), "is no whole .npz archive"),
        ("list.pth", save([torch.zeros(1)]), "holds a list"),
        ("model.pth", save(torch.nn.Linear(1, 1)), "torch.nn.modules.linear.Linear"),
        ("nothing.pth", save({}), "holds no weights but nothing"),
        ("numbers.pth", save({"epoch": 3, "lr": 0.1}), "holds no weights but epoch, lr"),
        ("scalar.pth", save({"head.fc.weight": torch.zeros(())}), "classifier's head.fc.weight is of shape ()"),
        ("strange.pth", save({"conv.weight": torch.zeros(1)}), "unexpected: conv.weight"),
        ("args.pth", save({"state_dict": {"x": torch.zeros(1)}, "args": argparse.Namespace(mean=3)}), "no sense"),
        ("strange.npz", savez(**{"conv1:0": np.zeros(1), "conv1:x": np.zeros(1)}), "'conv1:x' is none"),
        ("gap.npz", savez(**{"conv1:1": np.zeros(1)}), "'conv1:1' is none"),
        ("foreign.npz", savez(**{"conv1:0": np.zeros((64, 3, 7, 7))}), "missing: conv1/bn.weight"),
        ("text.npz", savez(**{"conv1:0": np.array(["a"])}), "is no whole .npz archive of numbers"),
    ],
)
def test_unreadable_sources(tmp_path, capsys, name, make, message):
    path = tmp_path / name
    make(path)
    code, out, err = run(capsys, path, tmp_path / "out", "--model", "resattn56")
    assert (code, out) == (2, "")
    assert err.startswith("timm-resattn convert: ")
    assert err.count("\n") == 1
    assert message in err
    assert_nothing_written(tmp_path, *([name] if path.exists() else []))


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--model", "resatn56_cifr"], "there is no model 'resatn56_cifr'; there is resattn56_cifar"),
        (["--model", "resnet50"], "there is no model 'resnet50'"),
        (["--model", "resattn92.resnetv2_50_a1h_in1k"], "there is resattn92, "),
        (["--num-classes", "7"], "has 5 classes, not 7"),
        (["--label-names", "a", "b"], "2 label names for 5 classes"),
        (["--from", "donor"], "is not a residual network, the donor of the trunk but, by its names, a checkpoint of"),
        (["--from", "pytorchcv"], "is not a checkpoint of pytorchcv's network but"),
        (["--from", "caffe-npz"], "is not blobs of the authors' Caffe network but"),
        (["--model-kwargs"], "does not fit the model: missing: "),
        ([*SMALL_ARGS, "attn_act=hard"], "attn_act must be one of 'mixed', 'channel', 'spatial'; got 'hard'"),
        ([*SMALL_ARGS, "widthz=3"], "has no argument widthz; it has "),
        ([*SMALL_ARGS, "widths=[3j]"], "JSON"),
    ],
)
def test_refusals(tmp_path, capsys, source, args, message):
    code, out, err = run(capsys, source, tmp_path / "out", "--model", "resattn56_cifar", *SMALL_ARGS, *args)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert message in err
    assert_nothing_written(tmp_path, source.name)


@pytest.mark.parametrize("args", [["--from", "onnx"], ["--model-kwargs", "depths"], ["--num-classes", "many"], []])
def test_wrong_usage(tmp_path, capsys, source, args):
    with pytest.raises(SystemExit) as stop:
        run(capsys, source, tmp_path / "out", *args)
    assert stop.value.code == 2
    assert_nothing_written(tmp_path, source.name)


def test_kind_is_checked(tmp_path, source):
    with pytest.raises(ValueError, match="must be one of auto, timm, donor, pytorchcv, caffe-npz"):
        convert(source, tmp_path / "out", "resattn56_cifar", kind="onnx")


def with_head(**changed):
    """Change or drop tensors of the classifier, by ``weight`` and ``bias``."""

    def spoil(tensors):
        for part, value in changed.items():
            if value is None:
                del tensors[f"head.fc.{part}"]
            else:
                tensors[f"head.fc.{part}"] = value

    return spoil


def with_value(name, value, dtype=None):
    def spoil(tensors):
        tensors[name] = tensors[name].to(dtype or torch.float32, copy=True)
        tensors[name].view(-1)[-1] = value

    return spoil


def with_twin(tensors):
    tensors["module.norm.weight"] = tensors["norm.weight"]


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (with_head(weight=None), "has head.fc.bias but no head.fc.weight"),
        (with_head(bias=None), "head.fc.bias"),
        (with_head(weight=torch.zeros(32)), "head.fc.weight is of shape (32,)"),
        (with_head(weight=torch.zeros(0, 32)), "head.fc.weight is of shape (0, 32)"),
        (with_head(weight=torch.zeros(5, 31)), "head.fc.weight"),
        (with_value("head.fc.bias", torch.nan), "head.fc.bias is not finite"),
        (with_value("stem.conv.weight", -torch.inf), "stem.conv.weight is not finite"),
        (with_value("norm.weight", 1e300, torch.float64), "norm.weight is not finite"),
        (with_value("norm.running_var", -1e-3), "norm.running_var is negative"),
        (with_value("norm.bias", 1, torch.int64), "norm.bias is of type int64"),
        (with_value("norm.bias", 1j, torch.complex64), "norm.bias is of type complex64"),
        (with_twin, "holds norm.weight twice"),
    ],
)
def test_damaged_weights_are_refused_by_name(tmp_path, capsys, source, spoil, message):
    tensors = torch.load(source)
    spoil(tensors)
    torch.save(tensors, source)
    code, out, err = run(capsys, source, tmp_path / "out", "--model", "resattn56_cifar", *SMALL_ARGS)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert message in err
    assert_nothing_written(tmp_path, source.name)


def test_pytorchcvs_weights_need_its_topology(tmp_path, capsys):
    torch.save(get_model("resattnet56").state_dict(), tmp_path / "source.pth")
    code, _, err = run(capsys, tmp_path / "source.pth", tmp_path / "out", "--model", "resattn56")
    assert (code, err.count("\n")) == (2, 1)
    assert "resattn56_dskip" in err


def test_loops_of_links(tmp_path, capsys, source):
    loop = tmp_path / "loop.pth"
    loop.symlink_to(loop)
    for args in ((loop, tmp_path / "out"), (source, loop), (source, loop / "below")):
        code, out, err = run(capsys, *args, "--model", "resattn56_cifar", *SMALL_ARGS)
        assert (code, out, err.count("\n")) == (2, "", 1)
    assert_nothing_written(tmp_path, "loop.pth", source.name)
    assert loop.is_symlink()


# --- all of the folder or nothing -----------------------------------------------------------------------------


def test_existing_folders(tmp_path, capsys, source):
    (tmp_path / "empty").mkdir()
    convert(source, tmp_path / "empty", "resattn56_cifar", model_kwargs=SMALL)
    load(tmp_path / "empty")
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
