"""A file to deploy computes what the network computes, tells what it must be given, and is whole or not there."""

import json

import numpy as np
import pytest
import timm
import torch
from helpers import OPTIONS, TINY_ARGS, fine_tuned, images, noise, relative_error, tiny

from timm_resattn import export as exporting
from timm_resattn.export import export
from timm_resattn.labels import class_names

SIZES = ((3, 45, 37), (1, 64, 33))  # batch, height, width


def onnx_file(tmp_path, model, **options):
    for package in ("onnx", "onnxruntime", "onnxscript"):
        pytest.importorskip(package)
    path = tmp_path / "network.onnx"
    options = {"img_size": 32, "dynamic": True, **options}
    assert export(model, path, **options) < 1e-4 or "pictures" in options
    assert [file.name for file in tmp_path.iterdir()] == ["network.onnx"]
    return path


def check(run, model, tolerance=1e-4):
    for batch, height, width in SIZES:
        x = noise(batch, 3, height, width)
        with torch.no_grad():
            assert relative_error(run(x), model(x)) < tolerance


ONNX_OPTIONS = ("resnext", "inception", "spatial", "ceil")


@pytest.mark.parametrize("option", ONNX_OPTIONS)
def test_onnx_is_the_network_at_odd_sizes(option, tmp_path):
    model = fine_tuned(**OPTIONS[option])
    path = onnx_file(tmp_path, model)
    check(exporting.run_onnx(path), model)


def test_openvino_reads_the_onnx_file(tmp_path):
    openvino = pytest.importorskip("openvino")
    model = fine_tuned()
    core = openvino.Core()
    compiled = core.compile_model(
        core.read_model(onnx_file(tmp_path, model)), "CPU", {"INFERENCE_PRECISION_HINT": "f32"}
    )
    check(lambda x: torch.from_numpy(compiled(x.numpy())[0]), model)


def test_torch_export(tmp_path):
    model = fine_tuned()
    path = tmp_path / "network.pt2"
    assert export(model, path, dynamic=True, img_size=32) < 1e-4
    check(torch.export.load(path).module(), model)


@pytest.mark.slow
def test_aotinductor(tmp_path):
    model = fine_tuned()
    path = tmp_path / "network.pt2"
    assert export(model, path, dynamic=True, img_size=32, compile=True, labels=["a", "b"]) < 1e-4
    package = torch._inductor.aoti_load_package(str(path))
    check(package, model)
    assert json.loads(package.get_metadata()["labels"]) == ["a", "b"]


def test_a_file_of_one_size(tmp_path):
    model = fine_tuned()
    run = exporting.run_onnx(onnx_file(tmp_path, model, dynamic=False, batch_size=2, img_size=45))
    x = noise(2, 3, 45, 45)
    assert relative_error(run(x), model(x).detach()) < 1e-4


def test_int8(tmp_path):
    """Weights of a byte, and nearly the network's logits, at sizes that it was not calibrated with too."""
    model, size = fine_tuned(), 40
    path = onnx_file(tmp_path, model, img_size=size, pictures=images(size, batch=20))
    onnx = pytest.importorskip("onnx")
    weights = [tensor for tensor in onnx.load(path).graph.initializer if tensor.data_type == onnx.TensorProto.INT8]
    convolutions = sum(isinstance(module, torch.nn.Conv2d) for module in model.modules())
    assert len(weights) > convolutions / 2
    run = exporting.run_onnx(path)
    for x in (images(size, batch=9, seed=1), images(33, batch=9, seed=2)):
        with torch.no_grad():
            assert 1e-5 < relative_error(run(x), model(x)) < 0.1


def expected_metadata(labels):
    cfg = timm.get_pretrained_cfg("resattn56_cifar.cifar10")
    return {
        "model": "resattn56_cifar.cifar10", "input_size": [3, 40, 40], "mean": list(cfg.mean), "std": list(cfg.std),
        "interpolation": "bilinear", "crop_pct": 1.0, "crop_mode": "center", "labels": labels,
    }  # fmt: skip


def with_cfg():
    """A tiny network under the cfg of weights that ship."""
    small = {name: TINY_ARGS[name] for name in ("depths", "widths", "closing_units", "mask_pools")}
    return timm.create_model("resattn56_cifar.cifar10", **small).eval()


def parsed(metadata):
    return {k: json.loads(v) if v[0] in "[0123456789" else v for k, v in metadata.items()}


def test_metadata_of_onnx(tmp_path):
    import_onnx = pytest.importorskip("onnx")
    model = with_cfg()
    path = onnx_file(tmp_path, model, img_size=40, dynamic=False, labels=class_names(model))
    found = {entry.key: entry.value for entry in import_onnx.load(path).metadata_props}
    assert parsed(found) == expected_metadata(list(timm.get_pretrained_cfg("resattn56_cifar.cifar10").label_names))


def test_metadata_of_pt2(tmp_path):
    model, extra_files = with_cfg(), {"metadata.json": ""}
    export(model, tmp_path / "network.pt2", img_size=40, labels=class_names(model))
    torch.export.load(tmp_path / "network.pt2", extra_files=extra_files)
    found = json.loads(extra_files["metadata.json"])
    assert parsed(found) == expected_metadata(list(timm.get_pretrained_cfg("resattn56_cifar.cifar10").label_names))


@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError, OSError])
def test_an_interruption_leaves_the_old_file(error, tmp_path, monkeypatch):
    path = tmp_path / "network.pt2"
    path.write_text("old")

    def fail(*args, **kwargs):
        assert len([*tmp_path.iterdir()]) == 2
        raise error

    monkeypatch.setattr(exporting, "_compare", fail)
    with pytest.raises(error):
        export(tiny().eval(), path, img_size=32)
    assert path.read_text() == "old" and [file.name for file in tmp_path.iterdir()] == ["network.pt2"]


def test_a_file_that_computes_something_else_is_not_written(tmp_path, monkeypatch):
    monkeypatch.setattr(exporting, "_write_pt2", lambda *args: lambda x: torch.ones(len(x), 5))
    with pytest.raises(RuntimeError, match=r"comparing failed \(ArithmeticError: the logits differ by"):
        export(tiny().eval(), tmp_path / "network.pt2", img_size=32)
    assert not [*tmp_path.iterdir()]


def test_not_a_number_is_not_written(tmp_path, monkeypatch):
    monkeypatch.setattr(exporting, "_write_pt2", lambda *args: lambda x: torch.full((len(x), 5), np.nan))
    with pytest.raises(RuntimeError, match="the logits differ by nan"):
        export(tiny().eval(), tmp_path / "network.pt2", img_size=32)
