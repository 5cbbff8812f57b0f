import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

import timm_resattn
from timm_resattn.cli import main

TINY_KWARGS = ["depths=(1,1)", "widths=(16,32)", "closing_units=(0,1)", "mask_pools=(2,1)"]


@pytest.fixture
def album(tmp_path):
    """A folder of pictures, some of them deep, and a broken one beside it."""
    rng = np.random.default_rng(0)
    for name in ("a.png", "deep/b.jpg", "deep/deeper/c.tif"):
        path = tmp_path / "album" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 255, (40, 48, 3), dtype=np.uint8)).save(path)
    (tmp_path / "album/notes.txt").write_text("no picture")
    (tmp_path / "broken.png").write_bytes((tmp_path / "album/a.png").read_bytes()[:-900])
    return tmp_path / "album"


def expected(path, model="resattn56_cifar"):
    network = timm.create_model(model, pretrained=True).eval()
    transform = timm.data.create_transform(**timm.data.resolve_model_data_config(network))
    with torch.inference_mode():
        return network(transform(Image.open(path).convert("RGB"))[None]).softmax(1)[0]


@pytest.mark.parametrize("batch_size", [1, 3, 16])
def test_pictures_and_folders(batch_size, album, capsys, monkeypatch):
    monkeypatch.setattr("timm_resattn.cli.predict.BATCH_SIZE", batch_size)
    assert main(["predict", str(album), str(album / "a.png"), "--model", "resattn56_cifar", "--topk", "2"]) == 0
    lines = capsys.readouterr().out.splitlines()
    paths = [album / name for name in ("a.png", "deep/b.jpg", "deep/deeper/c.tif", "a.png")]
    assert [line.partition(": ")[0] for line in lines] == list(map(str, paths))
    names = timm.get_pretrained_cfg("resattn56_cifar").label_names
    for path, line in zip(paths, lines, strict=True):
        best = expected(path).topk(2)
        wanted = ", ".join(f"{names[i]} {p:.1%}" for p, i in zip(*best, strict=True))
        assert line == f"{path}: {wanted}"


def test_json_lines_into_a_file_and_a_broken_picture(album, tmp_path, capsys):
    out = tmp_path / "predictions.jsonl"
    broken = album.parent / "broken.png"
    options = ["--model", "resattn56_cifar", "--json", "--out", str(out)]
    assert main(["predict", str(broken), str(album), "no_such.png", *options]) == 1
    printed = capsys.readouterr()
    assert printed.out == ""
    told = [line for line in printed.err.splitlines() if line.startswith("timm-resattn predict: ")]
    assert len(told) == 2 and "broken.png cannot be read" in told[0] and "no_such.png is not there" in told[1]
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert len(rows) == 3 and rows[0]["path"] == str(album / "a.png")
    probabilities = expected(album / "a.png")
    for prediction in rows[0]["predictions"]:
        assert prediction["probability"] == pytest.approx(probabilities[prediction["class"]].item(), abs=1e-6)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["album", "broken.png", "predictions.jsonl"]


def test_a_checkpoint_has_no_names_of_other_weights(album, tmp_path, capsys):
    kwargs = dict(depths=(1, 1), widths=(16, 32), closing_units=(0, 1), mask_pools=(2, 1))
    torch.save(timm.create_model("resattn56_cifar", **kwargs).state_dict(), tmp_path / "weights.pth")
    options = ["--checkpoint", str(tmp_path / "weights.pth"), "--model", "resattn56_cifar", "--json"]
    assert main(["predict", str(album / "a.png"), *options, "--model-kwargs", *TINY_KWARGS]) == 0
    assert set(json.loads(capsys.readouterr().out)["predictions"][0]) == {"class", "probability"}


def test_a_checkpoint_of_train_tells_its_model_and_its_data(album, tmp_path, capsys):
    """None of these arguments changes a tensor's name or shape."""
    kwargs = dict(depths=(1, 1), widths=(16, 32), closing_units=(0, 1), mask_pools=(2, 1), attn_act="spatial")
    kwargs.update(attn_residual=False, pool_mode="ceil")
    model = timm.create_model("resattn56_cifar", num_classes=4, **kwargs).eval()
    with torch.no_grad():
        model.head.fc.weight.mul_(100)
    args = argparse.Namespace(model="resattn56_cifar", model_kwargs=kwargs, num_classes=4, mean=(0.5,) * 3, img_size=24)
    torch.save({"state_dict": model.state_dict(), "args": args}, tmp_path / "weights.pth")
    options = ["--checkpoint", str(tmp_path / "weights.pth"), "--model", "resattn56_cifar", "--json", "--topk", "4"]
    assert main(["predict", str(album / "a.png"), *options]) == 0
    found = {each["class"]: each["probability"] for each in json.loads(capsys.readouterr().out)["predictions"]}
    data = dict(timm.data.resolve_model_data_config(model), mean=(0.5,) * 3, input_size=(3, 24, 24))
    x = timm.data.create_transform(**data)(Image.open(album / "a.png").convert("RGB"))[None]
    with torch.inference_mode():
        wanted = model(x).softmax(1)[0].tolist()
    assert [found[index] for index in range(4)] == pytest.approx(wanted, abs=1e-6)
    assert max(wanted) - min(wanted) > 1e-3
    assert main(["predict", str(album / "a.png"), *options, "--model", "resattn92_cifar"]) == 2
    assert "weights.pth: the checkpoint is one of resattn56_cifar" in capsys.readouterr().err


def test_a_name_that_the_output_cannot_hold(album):
    """As on Windows, where a pipe is not UTF-8."""
    (album / "фото.png").write_bytes((album / "a.png").read_bytes())
    (album / "\x1b[2Jb.png").write_text("no picture")
    path = os.pathsep.join([str(Path(timm_resattn.__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
    command = [
        sys.executable,
        "-m",
        "timm_resattn",
        "predict",
        "фото.png",
        "\x1b[2Jb.png",
        "a.png",
        "--model",
        "resattn56_cifar",
    ]
    environment = {**os.environ, "PYTHONPATH": path, "PYTHONIOENCODING": "cp1252"}
    done = subprocess.run(command, cwd=album, env=environment, capture_output=True, check=False)
    names = [line.partition(b": ")[0] for line in done.stdout.splitlines()]
    assert b"\x1b" not in done.stderr and b"\\x1b[2Jb.png cannot be read" in done.stderr
    assert (done.returncode, names) == (1, ["фото.png".encode("ascii", "backslashreplace"), b"a.png"]), done.stderr


def test_a_converted_folder_with_its_names(album, tmp_path, capsys):
    kwargs = dict(depths=(1, 1), widths=(16, 32), closing_units=(0, 1), mask_pools=(2, 1), num_classes=2)
    torch.save(timm.create_model("resattn56_cifar", **kwargs).state_dict(), tmp_path / "weights.pth")
    source = [str(tmp_path / "weights.pth"), str(tmp_path / "folder"), "--model", "resattn56_cifar"]
    assert main(["convert", *source, "--model-kwargs", *TINY_KWARGS, "--label-names", "owl", "fox"]) == 0
    capsys.readouterr()
    options = ["--model", f"local-dir:{tmp_path / 'folder'}", "--topk", "2"]
    assert main(["predict", str(album / "a.png"), *options]) == 0
    printed = capsys.readouterr().out
    assert "owl " in printed and "fox " in printed


@pytest.mark.parametrize("damage", ["weights", "configuration", "names"])
def test_a_damaged_folder(damage, album, tmp_path, capsys):
    kwargs = dict(depths=(1, 1), widths=(16, 32), closing_units=(0, 1), mask_pools=(2, 1), num_classes=2)
    torch.save(timm.create_model("resattn56_cifar", **kwargs).state_dict(), tmp_path / "weights.pth")
    folder = tmp_path / "folder"
    source = [str(tmp_path / "weights.pth"), str(folder), "--model", "resattn56_cifar"]
    assert main(["convert", *source, "--model-kwargs", *TINY_KWARGS, "--label-names", "owl", "fox"]) == 0
    config = json.loads((folder / "config.json").read_text())
    if damage == "weights":
        tensors = load_file(folder / "model.safetensors")
        tensors["norm.running_var"][0] = -1
        save_file(tensors, folder / "model.safetensors")
    elif damage == "configuration":
        config["pretrained_cfg"]["interpolation"] = "foo"
    else:
        config["label_names"] = ["\x1b[2Jowl", "fox\na.png: owl"]
    (folder / "config.json").write_text(json.dumps(config))
    capsys.readouterr()
    code = main(["predict", str(album / "a.png"), "--model", f"local-dir:{folder}", "--topk", "2"])
    printed = capsys.readouterr()
    if damage == "names":
        assert code == 0 and printed.out.count("\n") == 1 and "\\x1b[2Jowl" in printed.out and "\x1b" not in printed.out
    else:
        assert code == 2 and printed.out == "" and printed.err.count("\n") == 1
        assert (
            "norm.running_var is negative" if damage == "weights" else "configuration makes no sense"
        ) in printed.err


def test_imagenet_has_timms_names():
    from timm_resattn.labels import class_names

    model = timm.create_model("resattn50", device="meta")
    names = class_names(model)
    assert len(names) == 1000 and names[:2] == ["tench, Tinca tinca", "goldfish, Carassius auratus"]
    assert (names[134], names[517]) == ("crane (134)", "crane (517)") and len(set(names)) == 1000
    assert class_names(timm.create_model("resattn56_cifar", num_classes=7)) is None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["EMPTY"], "holds no picture"),
        (["no_such.png"], "none of the pictures could be read"),
        (["a.png", "--topk", "11"], "--topk must be from 1 to the model's 10 classes; got 11"),
        (["a.png", "--topk", "0"], "--topk must be from 1"),
        (["a.png", "--out", "nowhere/x.jsonl"], "does not exist"),
        (["a.png", "--out", "EMPTY"], "is a folder"),
        (["a.png", "--model", "resattn57"], "Unknown model (resattn57); timm-resattn list prints the names"),
        (["a.png", "--model", "local-dir:nowhere"], "could not create local-dir:nowhere"),
        (["a.png", "--model", "resattn56"], "could not create resattn56: "),
        (["a.png", "--no-pretrained"], "random weights predict nothing"),
        (["a.png", "--img-size", "0"], "--img-size must be at least 1; got 0."),
        (["a.png", "--num-classes", "5"], "a classifier of 5 classes is random"),
        (["a.png", "--out", "PIPE"], "is no file"),
        (["a.png", "--checkpoint", "nowhere.pth"], "nowhere.pth is not there"),
        (["a.png", "--model-kwargs", "in_chans=1"], "must take RGB images"),
    ],
)
def test_bad_input_is_one_sentence_and_leaves_nothing(arguments, message, album, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(album)
    (tmp_path / "empty").mkdir()
    if "PIPE" in arguments:
        os.mkfifo("PIPE")
    before = sorted(tmp_path.rglob("*"))
    argv = ["predict", "--model", "resattn56_cifar", *arguments]
    assert main([str(tmp_path / "empty") if word == "EMPTY" else word for word in argv]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert all(line.startswith("timm-resattn predict: ") for line in error.splitlines())
    assert error.count("\n") == (2 if "none of" in message else 1)
    assert sorted(tmp_path.rglob("*")) == before


def test_an_error_on_the_way_leaves_the_old_file(album, tmp_path, monkeypatch):
    out = tmp_path / "out.txt"
    out.write_text("old")
    monkeypatch.setattr("timm_resattn.cli.predict._line", lambda *args: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        main(["predict", str(album), "--model", "resattn56_cifar", "--out", str(out)])
    assert out.read_text() == "old" and sorted(p.name for p in tmp_path.iterdir()) == ["album", "broken.png", "out.txt"]
