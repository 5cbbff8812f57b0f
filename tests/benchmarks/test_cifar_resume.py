"""Stopping, going on, and beginning with other weights."""

import hashlib
import json
import signal

import pytest
import timm
import torch
from cifar_runs import MODEL, STEPS, log_of, needs_wsd, stop_after, terminate
from safetensors.torch import load_file, save_file

from benchmarks.cifar.recipe import Recipe
from benchmarks.cifar.run import Run

MIXED = ["--mixup", 0.3, "--cutmix", 1, "--cutout", 6]
PRUNED = ["--prune", 0.08, "--crop", 20, "--crop-epochs", 0.5]  # leaves the number of updates of an epoch as it is


@pytest.mark.parametrize("recipe", [MIXED, PRUNED])
@pytest.mark.parametrize("updates", [1, STEPS, STEPS + 2, 3 * STEPS - 2])
def test_a_stopped_run_goes_on_as_if_it_had_not(train, tmp_path, monkeypatch, updates, recipe):
    options = ["--epochs", 3, "--warmup-epochs", 1, "--ema-every", 2, *recipe]
    assert train(*options, out="whole") == 0
    stop_after(monkeypatch, updates, terminate)
    assert train(*options) == 128 + signal.SIGTERM
    monkeypatch.undo()
    assert not (tmp_path / "out" / "result.json").exists()
    assert torch.load(tmp_path / "out" / "last.pt", weights_only=True)["step"] == updates + 1
    assert train(*options, "--resume") == 0
    for name in ("model.safetensors", "ema.safetensors"):
        whole, resumed = (load_file(tmp_path / out / name) for out in ("whole", "out"))
        assert whole.keys() == resumed.keys() and all(torch.equal(whole[key], resumed[key]) for key in whole), name
    assert log_of(tmp_path / "out") == log_of(tmp_path / "whole")
    result = json.loads((tmp_path / "out" / "result.json").read_text())
    assert [session["from_update"] for session in result["sessions"]] == [0, updates + 1]


def test_max_seconds_leaves_a_checkpoint_that_loads(train, tmp_path, capsys):
    assert train("--epochs", 3, "--max-seconds", 0) == 0
    assert "stopped after 0 of 12 updates; go on with --resume" in capsys.readouterr().err
    assert {path.name for path in (tmp_path / "out").iterdir()} == {".lock", "config.json", "last.pt", "log.jsonl"}
    kwargs = dict(depths=(1, 0, 0), widths=(8, 8, 16), mask_pools=(1, 1, 1))
    model = timm.create_model(MODEL, checkpoint_path=str(tmp_path / "out" / "last.pt"), **kwargs)
    fresh = Run(MODEL, Recipe(), kwargs).create_model()
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), fresh.parameters(), strict=True))


@needs_wsd
def test_a_wsd_run_is_prolonged_before_its_decay_only(train, tmp_path, monkeypatch, capsys):
    wsd = ["--sched", "wsd", "--warmup-epochs", 1, "--decay-epochs", 1]
    stop_after(monkeypatch, 2 * STEPS, terminate)
    assert train("--epochs", 5, *wsd, out="first") == 143
    monkeypatch.undo()
    source = tmp_path / "first" / "last.pt"
    assert train("--epochs", 4, *wsd, "--resume", source, out="prolonged") == 0
    assert train("--epochs", 4, *wsd, out="whole") == 0
    whole, prolonged = (load_file(tmp_path / out / "model.safetensors") for out in ("whole", "prolonged"))
    assert all(torch.equal(whole[key], prolonged[key]) for key in whole)
    done = tmp_path / "prolonged" / "last.pt"
    with pytest.raises(SystemExit, match="2"):
        train("--epochs", 8, *wsd, "--resume", done, out="late")
    assert "the checkpoint is of another run: it has epochs 4 and not 8" in capsys.readouterr().err
    assert not (tmp_path / "late").exists()


def test_a_finished_run_is_left_as_it_is(train, tmp_path):
    assert train("--epochs", 1, "--warmup-epochs", 0) == 0
    before = (tmp_path / "out" / "result.json").read_bytes()
    assert train("--epochs", 1, "--warmup-epochs", 0, "--resume") == 0
    assert (tmp_path / "out" / "result.json").read_bytes() == before


def test_stop_epoch(train, tmp_path, capsys):
    assert train("--epochs", 3, "--stop-epoch", 2) == 0
    assert f"stopped after {2 * STEPS} of {3 * STEPS} updates" in capsys.readouterr().err
    assert len(log_of(tmp_path / "out")) == 2 and not (tmp_path / "out" / "result.json").exists()
    assert train("--epochs", 3, "--stop-epoch", 2, "--resume") == 0  # is there already
    assert len(log_of(tmp_path / "out")) == 2
    assert train("--epochs", 3, "--resume") == 0
    train("--epochs", 3, out="whole")
    stopped, whole = (load_file(tmp_path / name / "model.safetensors") for name in ("out", "whole"))
    assert all(torch.equal(stopped[name], tensor) for name, tensor in whole.items())


def test_init_begins_with_a_shallower_network(train, tmp_path):
    train("--epochs", 1, "--warmup-epochs", 0, out="shallow")
    begin = tmp_path / "shallow" / "last.pt"
    deeper = ["--model-kwargs", "depths=(1,0,2)", "widths=(8,8,16)", "mask_pools=(1,1,1)"]
    begun = ["--epochs", 2, "--warmup-epochs", 0, "--init", begin, *deeper]
    train(*begun, "--max-seconds", 0, out="deep")
    before, after = (torch.load(tmp_path / name / "last.pt") for name in ("shallow", "deep"))
    shared = before["state_dict"].keys() & after["state_dict"].keys()
    taken = [name for name in shared if torch.equal(before["state_dict"][name], after["state_dict"][name])]
    assert "stem.conv.weight" in taken and any(".pre." in name for name in taken)
    assert all(torch.equal(after["state_dict"][name], ema) for name, ema in after["state_dict_ema"].items())
    begin.unlink()  # going on needs no more than the run itself
    train(*begun, "--resume", out="deep")
    result = json.loads((tmp_path / "deep" / "result.json").read_text())
    assert (result["start"]["updates"], result["start"]["run"]) == (STEPS, before["run"])
    assert result["start"]["training_seconds"] == pytest.approx(before["log"][0]["seconds"], abs=0.06)
    assert f"--init {begin}" in result["command"]


def test_init_begins_with_a_trunk(train, tmp_path):
    small = ["--epochs", 1, "--warmup-epochs", 0]
    plain = ["--model-kwargs", "depths=(0,0,0)", "closing_units=(1,1,1)", "widths=(8,8,16)"]
    train(*small, *plain, out="donor")
    donor = tmp_path / "donor" / "ema.safetensors"
    train(*small, "--init", donor, "--train-only", "masks", "--max-seconds", 0, out="begun")
    begun = torch.load(tmp_path / "begun" / "last.pt")["state_dict"]
    train(*small, "--init", donor, "--train-only", "masks", "--resume", out="begun")
    ended = load_file(tmp_path / "begun" / "model.safetensors")
    assert torch.equal(begun["stem.conv.weight"], load_file(donor)["stem.conv.weight"])
    learnt = {name for name, tensor in ended.items() if not torch.equal(tensor, begun[name])}
    assert any(".mask.tail.conv2" in name for name in learnt)
    assert all(".mask." in name or name.startswith(("norm.", "head.")) for name in learnt)
    assert "--train-only masks" in json.loads((tmp_path / "begun" / "result.json").read_text())["command"]


def test_init_begins_with_a_file_of_weights(train, tmp_path, capsys):
    train("--epochs", 1, "--warmup-epochs", 0, out="first")
    weights = tmp_path / "first" / "ema.safetensors"
    train("--epochs", 2, "--warmup-epochs", 0, "--init", weights, "--max-seconds", 0, out="second")
    begun = torch.load(tmp_path / "second" / "last.pt")
    assert begun["step"] == 0
    for name, tensor in load_file(weights).items():
        assert torch.equal(begun["state_dict"][name], tensor) and torch.equal(begun["state_dict_ema"][name], tensor)
    digest = hashlib.sha256(weights.read_bytes()).hexdigest()
    train("--epochs", 2, "--warmup-epochs", 0, "--init", weights, "--resume", out="second")
    result = json.loads((tmp_path / "second" / "result.json").read_text())
    assert result["start"] == {"file": "ema.safetensors", "sha256": digest}
    save_file({"a": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(SystemExit, match="2"):
        train("--epochs", 1, "--warmup-epochs", 0, "--init", tmp_path / "other.safetensors", out="third")
    assert "the weights have 0 blocks there" in capsys.readouterr().err and not (tmp_path / "third").exists()
