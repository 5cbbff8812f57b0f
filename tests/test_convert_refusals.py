"""What `timm-resattn convert` refuses: one sentence, and nothing is written."""

import argparse
import io
import os
import pickle
import zipfile

import numpy as np
import pytest
import torch
from converting import SMALL_ARGS, assert_nothing_written, run, save_small

from timm_resattn.checkpoints import read_file
from timm_resattn.convert import convert


@pytest.fixture
def source(tmp_path):
    return save_small(tmp_path)


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


ARGS = [  # of train.py, and what is wrong
    (dict(mean=3), "no sense"),
    (dict(mean=torch.zeros(3)), "no sense (TypeError"),
    (dict(std=(float("nan"),) * 3), "no sense (ValueError"),
    (dict(interpolation="foo"), "no sense (KeyError"),
    (dict(crop_pct="a"), "no sense (TypeError"),
    (dict(model_kwargs={1: 2}), "a model has no argument 1; it has "),
    (dict(model_kwargs=dict(checkpoint_path="x")), "a model has no argument checkpoint_path; it has "),
    (dict(model_kwargs=3), "no sense (TypeError"),
    (dict(gp=[1]), "no sense"),
]


def deflated(content):
    """A compressed archive of torch.save, with what hides its end from Python, not from torch."""
    buffer = io.BytesIO()
    source = zipfile.ZipFile(io.BytesIO(zipped(content)))
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as target:
        for name in source.namelist():
            target.writestr(name, source.read(name))
    return buffer.getvalue() + b"xxPK\5\6"


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
        *[
            (f"args{i}.pth", save({"state_dict": {"x": torch.zeros(1)}, "args": argparse.Namespace(**args)}), message)
            for i, (args, message) in enumerate(ARGS)
        ],
        ("sparse.pth", save({"head.fc.weight": torch.zeros(10**7, 10**6, layout=torch.sparse_coo)}), "Not all of"),
        ("meta.pth", save({"head.fc.weight": torch.zeros(10**7, 10**6, device="meta")}), "Not all of"),
        ("hollow.pth", save({"stem.conv.weight": torch.zeros(0, 10**12, 1, 1)}), "Not all of stem.conv.weight is"),
        ("tail.pth", lambda path: path.write_bytes(deflated({"x": torch.zeros(2 * 10**7)})), "is damaged"),
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
        ([*SMALL_ARGS, "norm_layer=foo"], "foo"),
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
        (with_head(weight=torch.zeros(0, 32)), "Not all of head.fc.weight is stored"),
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


def test_loops_of_links(tmp_path, capsys, source):
    loop = tmp_path / "loop.pth"
    loop.symlink_to(loop)
    for args in ((loop, tmp_path / "out"), (source, loop), (source, loop / "below")):
        code, out, err = run(capsys, *args, "--model", "resattn56_cifar", *SMALL_ARGS)
        assert (code, out, err.count("\n")) == (2, "", 1)
    assert_nothing_written(tmp_path, "loop.pth", source.name)
    assert loop.is_symlink()


def test_a_flipped_bit_in_an_archive_is_refused(tmp_path, capsys, source):
    """torch.load does not look at the checksums."""
    content = bytearray(source.read_bytes())
    content[content.index(torch.load(source)["norm.bias"].numpy().tobytes())] ^= 1
    source.write_bytes(content)
    assert torch.load(source)  # unnoticed
    code, out, err = run(capsys, source, tmp_path / "out", "--model", "resattn56_cifar", *SMALL_ARGS)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "is damaged" in err and "is not what was written" in err
    assert_nothing_written(tmp_path, source.name)


def test_an_archive_without_checksums_is_read(tmp_path):
    if not hasattr(torch.serialization, "set_crc32_options"):
        pytest.skip("this torch always writes checksums")
    weights = {"norm.bias": torch.ones(3)}
    written = torch.serialization.get_crc32_options()
    torch.serialization.set_crc32_options(False)
    try:
        torch.save(weights, tmp_path / "weights.pth")
    finally:
        torch.serialization.set_crc32_options(written)
    assert torch.equal(read_file(tmp_path / "weights.pth")["norm.bias"], weights["norm.bias"])


@pytest.mark.parametrize("suffix", [".npz", ".pth"])
def test_an_archive_that_unpacks_to_far_more_is_not_unpacked(tmp_path, capsys, suffix):
    path = tmp_path / f"bomb{suffix}"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("conv1:0.npy", "w") as entry:
        for _ in range(65):
            entry.write(bytes(1 << 20))
    code, out, err = run(capsys, path, tmp_path / "out", "--model", "resattn56")
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "unpacks to 65 MB" in err
    assert_nothing_written(tmp_path, path.name)


def test_a_view_of_one_number_as_a_classifier_of_a_billion_classes(tmp_path, capsys, source):
    tensors = torch.load(source)
    tensors["head.fc.weight"] = torch.zeros(()).expand(10**9, 32)
    tensors["head.fc.bias"] = torch.zeros(()).expand(10**9)
    torch.save(tensors, source)
    code, out, err = run(capsys, source, tmp_path / "out", "--model", "resattn56_cifar", *SMALL_ARGS)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "Not all of head.fc.weight, head.fc.bias is stored" in err
    assert_nothing_written(tmp_path, source.name)
