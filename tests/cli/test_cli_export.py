import sys

import pytest
import timm
import torch
from PIL import Image

from timm_resattn import export as exporting
from timm_resattn.cli import export as command
from timm_resattn.cli import main

TINY_KWARGS = ["depths=(1,1)", "widths=(16,32)", "closing_units=(0,1)", "mask_pools=(2,1)"]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The working folder: weights.pth, photos/ with a folder in it and a broken file, and empty/."""
    kwargs = dict(depths=(1, 1), widths=(16, 32), closing_units=(0, 1), mask_pools=(2, 1))
    torch.save(timm.create_model("resattn56_cifar", **kwargs).state_dict(), tmp_path / "weights.pth")
    (tmp_path / "photos" / "more").mkdir(parents=True)
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "notes.txt").touch()
    for i, name in enumerate(("a.png", "b.jpg", "more/c.JPG")):
        Image.radial_gradient("L").rotate(20 * i).convert("RGB").save(tmp_path / "photos" / name)
    (tmp_path / "photos" / "broken.png").write_text("no picture")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def words(*extra, model="resattn56_cifar", out="network.pt2"):
    return ["export", model, out, "--checkpoint", "weights.pth", "--model-kwargs", *TINY_KWARGS, *extra]


def need_onnx():
    for package in ("onnx", "onnxruntime", "onnxscript"):
        pytest.importorskip(package)


def test_export_writes_a_program(folder, capsys):
    assert main(words()) == 0
    captured = capsys.readouterr()
    assert "network.pt2: " in captured.out and "run and compared with the network: relative error" in captured.out
    assert [line.rpartition(" ")[2] for line in captured.err.splitlines()] == ["exporting", "writing", "comparing"]
    program = torch.export.load("network.pt2", extra_files=(extra := {"metadata.json": ""}))
    assert program.module()(torch.zeros(1, 3, 32, 32)).shape == (1, 10)
    assert '"labels"' not in extra["metadata.json"]  # nobody knows those of a checkpoint


def test_export_in_int8_names_what_it_cant_read(folder, capsys):
    need_onnx()
    assert main(words("--int8", "--calibrate", "photos", out="network.onnx")) == 0
    error = capsys.readouterr().err
    assert "broken.png cannot be read as a picture" in error and "Traceback" not in error


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        (["--checkpoint", "", "--no-pretrained"], "give --checkpoint FILE or published weights"),
        (["--checkpoint", "", "--num-classes", "5", "--model-kwargs"], "a classifier of 5 classes is random"),
        (["--checkpoint", "no_such_file.pth"], "no_such_file.pth is not there"),
        (["--num-classes", "7"], "size mismatch for head.fc.weight"),
        (["--batch-size", "0"], "--batch-size must be at least 1"),
        (["--img-size", "1"], "Input image too small"),
        (["--img-size", "0"], "--img-size must be at least 1; got 0."),
        (["--img-size", "-3"], "--img-size must be at least 1; got -3."),
        (["--int8"], "--int8 and --calibrate DIR go together"),
        (["--calibrate", "photos"], "--int8 and --calibrate DIR go together"),
        (["--int8", "--calibrate", "photos"], "only an .onnx file can be int8"),
        (["--int8", "--calibrate", "no_such_folder"], "no folder 'no_such_folder' to calibrate with"),
        (["--int8", "--calibrate", "weights.pth"], "no folder 'weights.pth' to calibrate with"),
        (["--int8", "--calibrate", "empty"], "'empty' holds no picture"),
    ],
)
def test_bad_options_are_refused_in_a_sentence(extra, message, folder, capsys):
    refuse(words(*extra), message, folder, capsys)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (dict(model="resattn57"), "Unknown model (resattn57); timm-resattn list prints the names"),
        (dict(out="network.tflite"), "suffix must be one of .onnx, .pt2; got 'network.tflite'"),
        (dict(out="network"), "suffix must be one of"),
        (dict(out="no_such_folder/network.pt2"), "does not exist"),
        (dict(out="weights.pth/network.pt2"), "does not exist"),
        (dict(out="folder.onnx"), "is a folder"),
    ],
)
def test_bad_names_are_refused_in_a_sentence(changed, message, folder, capsys):
    (folder / "folder.onnx").mkdir()
    refuse(words(**changed), message, folder, capsys)


def refuse(argv, message, folder, capsys):
    before = sorted(folder.rglob("*"))
    assert main(argv) == 2
    error = capsys.readouterr().err
    last = error.splitlines()[-1]
    assert message in last and last.startswith("timm-resattn export: ")
    assert "Traceback" not in error
    assert sorted(folder.rglob("*")) == before


def test_compiling_onnx_is_refused(folder, capsys):
    refuse(words("--compile", out="network.onnx"), "only a .pt2 file can be compiled", folder, capsys)


def test_pictures_none_of_which_can_be_read(folder, capsys):
    (folder / "empty" / "broken.png").write_text("no picture")
    argv = words("--int8", "--calibrate", "empty", out="network.onnx")
    refuse(argv, "none of the pictures to calibrate with can be read", folder, capsys)


def test_a_full_disk(folder, capsys, monkeypatch):
    def fail(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch.export, "save", fail)
    refuse(words(), "No space left on device", folder, capsys)


def test_a_folder_that_can_not_be_written(folder, capsys, monkeypatch):
    monkeypatch.setattr("timm_resattn.files.os.access", lambda path, mode: False)  # to root each folder can
    refuse(words(), "the folder of 'network.pt2' cannot be written to", folder, capsys)


def test_options_reach_the_export(folder, monkeypatch):
    given = {}

    def export(model, path, **options):
        given.update(options, path=path)
        (folder / path).touch()
        return 0.0

    monkeypatch.setattr("timm_resattn.cli.export.export", export)
    options = ["--dynamic", "--batch-size", "3", "--img-size", "40", "--compile"]
    assert main(["export", "resattn56_cifar", "network.pt2", *options]) == 0
    assert given.pop("labels") == list(timm.get_pretrained_cfg_value("resattn56_cifar", "label_names"))
    assert callable(given.pop("progress"))
    wanted = dict(path="network.pt2", dynamic=True, batch_size=3, img_size=40, compile=True, pictures=None)
    assert given == wanted


def test_whatever_an_exporter_raises_is_one_sentence(folder, capsys, monkeypatch):
    def fail(*args, **kwargs):
        raise TypeError("first line\nsecond line")

    monkeypatch.setattr(exporting, "_exported", fail)
    refuse(words(), "exporting failed (TypeError: first line second line)", folder, capsys)


@pytest.mark.parametrize("package", ["onnx", "onnxruntime", "onnxscript"])
def test_without_the_extra_it_is_named(package, folder, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    refuse(words(out="network.onnx"), 'pip install "timm-resattn[export]" brings it', folder, capsys)


def test_calibration_pictures_are_spread_over_the_folder(folder, monkeypatch):
    monkeypatch.setattr(command, "CALIBRATION_PICTURES", 3)
    (folder / "many").mkdir()
    for index in range(12):
        Image.new("RGB", (40, 40)).save(folder / "many" / f"{index:02}.png")
    read = []
    monkeypatch.setattr(
        "timm_resattn.cli.reading.read_picture", lambda path: read.append(path.stem) or Image.new("RGB", (40, 40))
    )
    model = timm.create_model("resattn56_cifar", device="meta")
    assert command._calibration("many", model, None).shape == (3, 3, 32, 32)
    assert read == ["00", "04", "08"]
