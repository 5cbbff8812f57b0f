"""The command: what it writes and what it refuses."""

import json
import subprocess
import sys

import pytest
import timm
import torch
from cifar_runs import MODEL, log_of
from helpers import random_cifar
from safetensors.torch import load_file

from benchmarks.cifar import run as runs
from benchmarks.cifar import trainer


def test_what_the_result_says(train, tmp_path, data):
    assert train("--epochs", 2, "--warmup-epochs", 0, "--seed", 7, "--eval-every", 1, "--label-noise", 0.4) == 0
    out = tmp_path / "out"
    result, log = json.loads((out / "result.json").read_text()), log_of(out)
    assert [row["epoch"] for row in log] == [1, 2]
    assert result["error"] == log[-1]["error"] and result["error_ema"] == log[-1]["error_ema"]  # of the last epoch
    assert result["held_out"] == "test, 30 images" and result["training_images"] == 70 and result["seed"] == 7
    assert {"command", "commit", "hardware", "versions", "schedule", "sessions"} <= result.keys()
    assert result["schedule"]["label_noise"] == 0.4 and "--label-noise 0.4" in result["command"]
    assert result["processor_seconds"] > 0 and 0 <= result["share_outside"] < 1 and result["images_per_second"] > 0
    assert str(tmp_path) not in (out / "result.json").read_text()
    config = json.loads((out / "config.json").read_text())
    assert config == {"command": result["command"], **result["schedule"]} and log[-1]["dead"] == result["dead"]
    kwargs = dict(depths=(1, 0, 0), widths=(8, 8, 16), mask_pools=(1, 1, 1))
    images, labels = runs.load_cifar(data, "test")
    for name, error in (("model", result["error"]), ("ema", result["error_ema"])):
        model = timm.create_model(MODEL, **kwargs).to(memory_format=torch.channels_last)
        model.load_state_dict(load_file(out / f"{name}.safetensors"))
        assert trainer.error_percent(model, images, labels) == pytest.approx(error, abs=1e-3)
    assert not list(out.glob("*.part"))


def test_validation_reads_no_test_set(data, train, tmp_path):
    folder = tmp_path / "only_train"
    folder.mkdir()
    (folder / "train.npz").symlink_to(data / "train.npz")
    assert train("--epochs", 1, "--warmup-epochs", 0, "--val-images", 20, data_dir=folder) == 0
    result = json.loads((tmp_path / "out" / "result.json").read_text())
    assert result["held_out"] == "validation, 20 images" and result["training_images"] == 50


def test_another_seed_is_another_run(train, tmp_path):
    for seed in (0, 1):
        train("--epochs", 1, "--warmup-epochs", 0, "--seed", seed, out=f"seed{seed}")
    first, second = (load_file(tmp_path / f"seed{seed}" / "model.safetensors") for seed in (0, 1))
    modes = {(tmp_path / "seed0" / name).stat().st_mode for name in ("model.safetensors", "log.jsonl")}
    assert len(modes) == 1, "weights are as readable as any other file"
    assert not torch.equal(first["head.fc.weight"], second["head.fc.weight"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--label-noise", "2"], "label_noise must be from 0 to 1; got 2.0"),
        (["--crop", "33"], "crop must be 0 or from 2 to 32, the image's side; got 33"),
        (["--crop", "1"], "crop must be 0 or from 2 to 32"),
        (["--lr", "0"], "lr must be greater than 0"),
        (["--images", "0"], "images must be from 1 to 70"),
        (["--images", "71"], "images must be from 1 to 70"),
        (["--images", "10"], "batch_size must be at most 10"),
        (["--val-images", "70"], "val_images must be from 0 to 69"),
        (["--model", "resattn57"], "resattn57"),
        (["--model-kwargs", "depths"], "argument --model-kwargs: must be KEY=VALUE pairs; got depths"),
        (["--model-kwargs", "depth=3"], "depth"),
        (["--model-kwargs", "attn_act=x"], "attn_act must be one of 'mixed', 'channel', 'spatial'; got 'x'"),
        (["--device", "gpu"], "--device must be cpu, cuda"),
        (["--opt", "sdg"], "opt must be one of timm.optim.list_optimizers(), as sgd or adamw; got 'sdg'"),
        (["--seed", "-1"], "seed must be"),
        (["--eval-every", "-1"], "--eval-every must be"),
        (["--stop-epoch", "-1"], "--stop-epoch must be"),
        (["--max-seconds", "-1"], "--max-seconds must be"),
        (["--dataset", "cifar100", "--data-dir", "/nowhere"], "/nowhere holds neither train.npz nor an image folder"),
        (["--resume", "/nowhere/last.pt"], "/nowhere/last.pt is not there"),
        (["--init", "/nowhere/last.pt"], "/nowhere/last.pt is not there"),
    ],
)
def test_bad_options_are_one_sentence(train, tmp_path, capsys, options, message):
    with pytest.raises(SystemExit, match="2"):
        train("--epochs", 3, *options)
    error = capsys.readouterr().err.partition("error: ")[2]
    assert message in error and error.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_init_of_another_network_is_refused(train, tmp_path, capsys):
    train("--epochs", 1, "--warmup-epochs", 0, out="shallow")
    narrow = ["--model-kwargs", "depths=(1,0,0)", "widths=(8,8,8)", "mask_pools=(1,1,1)"]
    with pytest.raises(SystemExit, match="2"):
        train("--epochs", 1, "--warmup-epochs", 0, "--init", tmp_path / "shallow" / "last.pt", *narrow)
    assert "(4,) instead of (2,)" in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_runs_are_not_mixed_up(train, tmp_path, capsys):
    train("--epochs", 3, "--max-seconds", 0)
    for options, message in (
        ([], "holds a run; give --resume to go on with it, or another --out"),
        (["--resume", "--lr", 0.3], "the checkpoint is of another run: it has lr 0.02 and not 0.3"),
        (["--resume", "--seed", 4], "it has seed 0 and not 4"),
        (["--resume", "--init", "x.pt"], "it has init None and not x.pt"),
    ):
        with pytest.raises(SystemExit, match="2"):
            train("--epochs", 3, *options)
        assert message in capsys.readouterr().err


def test_a_run_goes_on_with_its_own_data_only(train, tmp_path, capsys):
    train("--epochs", 3, "--max-seconds", 0)
    (tmp_path / "more").mkdir()
    random_cifar(tmp_path / "more", 71, 30)
    with pytest.raises(SystemExit, match="2"):
        train("--epochs", 3, "--resume", data_dir=tmp_path / "more")
    assert "the checkpoint is of a run on 70 images, not on 71" in capsys.readouterr().err


class Payload:
    def __reduce__(self):
        return print, ("run",)


@pytest.mark.parametrize("content", [b"", b"PK broken", {"step": 1}, Payload()])
def test_a_file_that_is_no_checkpoint(train, tmp_path, capsys, content):
    path = tmp_path / "x.pt"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        torch.save(content, path)
    with pytest.raises(SystemExit, match="2"):
        train("--epochs", 3, "--resume", path)
    printed = capsys.readouterr()
    assert str(path) in printed.err and "Traceback" not in printed.err and not printed.out


def test_a_loss_that_is_not_finite_ends_the_run(train, capsys, tmp_path):
    assert train("--epochs", 3, "--warmup-epochs", 0, "--lr", 1e30) == 1
    assert "the loss is not finite in epoch" in capsys.readouterr().err
    assert not (tmp_path / "out" / "result.json").exists()


def test_two_processes_never_write_to_one_folder(train, tmp_path, capsys):
    code = "import sys, time; from pathlib import Path; from benchmarks.common.files import locked\n"
    code += "with locked(Path(sys.argv[1])): print('in', flush=True); time.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", code, tmp_path / "out"], stdout=subprocess.PIPE) as other:
        try:
            assert other.stdout.readline() == b"in\n"
            assert train("--epochs", 1, "--warmup-epochs", 0) == 1
        finally:
            other.kill()
    error = capsys.readouterr().err
    assert f"another process is writing to {tmp_path / 'out'}" in error and error.count("\n") == 1
    assert [path.name for path in (tmp_path / "out").iterdir()] == [".lock"]
    assert train("--epochs", 1, "--warmup-epochs", 0) == 0  # the lock of a killed process is none
