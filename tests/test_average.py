"""Averages of runs' weights: the mean, the norms' statistics, where it comes from, and what is refused."""

import hashlib
import json

import pytest
import torch
from helpers import random_cifar
from safetensors.torch import load_file
from torch import nn

average = pytest.importorskip("benchmarks.cifar.average")
cifar = pytest.importorskip("benchmarks.cifar.__main__")
trainer = pytest.importorskip("benchmarks.cifar.trainer")

MODEL = "resattn56_cifar"
KWARGS = ["depths=(1,0,0)", "widths=(8,8,16)", "mask_pools=(1,1,1)"]
STATISTICS = ("running_mean", "running_var", "num_batches_tracked")


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Folder of CIFAR-like data, two runs of a network, the second one begun with the first, and one of another."""
    folder = tmp_path_factory.mktemp("runs")
    random_cifar(folder, 300, 30)
    common = ["--model", MODEL, "--data-dir", str(folder), "--device", "cpu", "--batch-size", "16", "--epochs", "1"]
    for name, *more in (
        ("a", *KWARGS),
        ("b", *KWARGS, "--seed", "1", "--init", str(folder / "a" / "last.pt")),
        ("other", "depths=(1,0,0)", "widths=(8,8,8)", "mask_pools=(1,1,1)"),
        ("noisy", *KWARGS, "--label-noise", "0.5"),
    ):
        arguments = [*common, "--warmup-epochs", "0", "--lr", "0.01", "--out", str(folder / name), "--model-kwargs"]
        assert cifar.main([*arguments, *more]) == 0
    return folder


def run(runs, out, *files, options=()):
    sizes = ["--norm-images", "250", "--loss-images", "50"]
    return average.main([*map(str, files), "--data-dir", str(runs), "--out", str(out), *sizes, *options])


def test_mean_of_the_moving_averages_with_norms_measured_anew(runs, tmp_path, capsys):
    first, second = runs / "a" / "last.pt", runs / "b" / "last.pt"
    assert run(runs, tmp_path / "mean", first, second, options=["--test"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.partition(": loss ")[0] for line in lines[:3]] == [str(first), str(second), "mean"]
    found = load_file(tmp_path / "mean" / "model.safetensors")
    a, b = (load_file(runs / name / "ema.safetensors") for name in ("a", "b"))
    assert found.keys() == a.keys()
    for name, tensor in found.items():
        if name.endswith(STATISTICS):
            assert name.endswith(STATISTICS[2]) or not torch.equal(tensor, (a[name] + b[name]) / 2)
        else:
            assert torch.allclose(tensor, (a[name].double() + b[name].double()).div(2).float(), rtol=0, atol=1e-7)

    # the stem's norm sees the stem's convolution of the same images
    (images, _), *rest = average.augmented(trainer.load_cifar(runs, "train")[0], 250, 0, 1)
    assert not rest
    mapped = nn.functional.conv2d(images, found["stem.conv.weight"], padding=1)
    norm = next(name.removesuffix(".running_mean") for name in found if name.endswith("norm1.running_mean"))
    assert norm == "stages.0.blocks.0.norm1"
    assert torch.allclose(found[f"{norm}.running_mean"], mapped.mean((0, 2, 3)), atol=1e-4)
    assert torch.allclose(found[f"{norm}.running_var"], mapped.var((0, 2, 3)), rtol=1e-3)

    result = json.loads((tmp_path / "mean" / "result.json").read_text())
    assert result["held_out"] == "test, 30 images" and 0 <= result["error"] <= 100 and result["seed"] == 0
    assert result["command"].startswith(
        f"python -m benchmarks.cifar.average {first} {second} --data-dir DIR --norm-images"
    )
    assert [len(member["log"]) for member in result["average"]] == [1, 1]
    assert result["average"][1]["start"]["updates"] == result["average"][0]["updates"] == 300 // 16


def test_a_run_begins_with_a_mean_and_says_so(runs, tmp_path):
    files = [runs / name / "ema.safetensors" for name in ("a", "b")]
    kwargs = dict(depths=(1, 0, 0), widths=(8, 8, 16), mask_pools=(1, 1, 1))
    with pytest.raises(SystemExit, match="2"):  # the named network has other widths than the files
        run(runs, tmp_path / "mean", *files, options=["--model", MODEL])
    run(runs, tmp_path / "mean", runs / "a" / "last.pt", *files)
    assert not (tmp_path / "mean" / "result.json").exists()  # no test set without --test
    path = tmp_path / "mean" / "model.safetensors"
    _, start = trainer.read_start(path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert start["sha256"] == start["average"]["sha256"] == digest and len(start["average"]["members"]) == 3
    assert start["average"]["members"][1]["file"] == "ema.safetensors"
    trained = trainer.Run(MODEL, average.RECIPES["modern"], kwargs).create_model()
    trained.load_state_dict(load_file(path))
    path.with_suffix(".json").write_text(json.dumps({"sha256": "another"}))
    assert "average" not in trainer.read_start(path)[1]


def test_the_mean_of_equal_weights_is_theirs(runs, tmp_path):
    weights = load_file(runs / "a" / "ema.safetensors")
    model = trainer.Run(MODEL, average.RECIPES["modern"], dict(
        depths=(1, 0, 0), widths=(8, 8, 16), mask_pools=(1, 1, 1)
    )).create_model()  # fmt: skip
    mean = average.mean_of([weights] * 3, model)
    assert all(torch.equal(mean[name], tensor) for name, tensor in weights.items())


@pytest.mark.parametrize(
    ("files", "options", "message"),
    [
        (["a/last.pt"], [], "FILE must be given twice or more"),
        (["a/last.pt", "none.pt"], [], "none.pt is not there"),
        (["a/last.pt", "train.npz"], [], "train.npz"),
        (["a/ema.safetensors", "b/ema.safetensors"], [], "--model must name it; got none"),
        (["a/last.pt", "b/last.pt"], ["--model", "resattn92_cifar"], "must be of one network"),
        (["a/last.pt", "other/last.pt"], [], "with the same model_kwargs"),
        (["a/last.pt", "noisy/last.pt"], [], "on the same images, labels and input"),
        (["a/last.pt", "other/ema.safetensors"], [], "file 2 does not hold the network's weights"),
        (["a/last.pt", "b/last.pt"], ["--norm-images", "9"], "--norm-images must be at least 250; got 9"),
        (["a/last.pt", "b/last.pt"], ["--loss-images", "0"], "--loss-images must be at least 1; got 0"),
        (["a/last.pt", "b/last.pt"], ["--device", "gpu"], "--device must be cpu, cuda"),
        (["a/last.pt", "b/last.pt"], ["--data-dir", "/nowhere"], "/nowhere holds neither"),
    ],
)
def test_what_is_refused(runs, tmp_path, capsys, files, options, message):
    with pytest.raises(SystemExit, match="2"):
        run(runs, tmp_path / "mean", *(runs / file for file in files), options=options)
    error = capsys.readouterr().err.partition("error: ")[2]
    assert message in error and error.count("\n") == 1
    assert not (tmp_path / "mean").exists()
