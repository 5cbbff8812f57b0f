"""What ships, and what is refused."""

import hashlib
import json
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import load_file, save_file

from benchmarks.cifar.data import load_cifar, normalize
from benchmarks.cifar.outputs import weights_of
from benchmarks.cifar.recipe import RECIPES
from benchmarks.cifar.results import commits_of
from benchmarks.cifar.run import Run
from benchmarks.release import ship
from timm_resattn import shipped


def finished_run(folder: Path, model="resattn56_cifar", **changes):
    run = Run(model, RECIPES["modern"])
    result = {
        "command": "python -m benchmarks.cifar", "commit": "abc", "seed": 0, "schedule": run.as_dict(),
        "held_out": "test, 10000 images", "error": 9.5, "error_ema": 8.25, "training_seconds": 7200,
        "hardware": {"cpu": "some CPU, 2 cores", "threads": 1, "gpu": None},
    }  # fmt: skip
    sessions = [{"hardware": result["hardware"], "commit": commit} for commit in ("aaa", changes.get("commit", "abc"))]
    result["sessions"] = [sessions[0], *sessions]
    schedule = result["schedule"] | {key: changes.pop(key) for key in list(changes) if key in result["schedule"]}
    folder.mkdir()
    (folder / "result.json").write_text(json.dumps(result | changes | {"schedule": schedule}))
    weights = weights_of(run.create_model())
    save_file(weights, folder / "ema.safetensors")
    save_file({key: value + 1 for key, value in weights.items()}, folder / "model.safetensors")
    return weights


def test_a_finished_run_ships(tmp_path, capsys, data):
    weights = finished_run(tmp_path / "run")
    folder = tmp_path / "weights"
    folder.mkdir()
    other = {"sha256": "0"}
    (folder / "manifest.json").write_text(json.dumps({"other.safetensors": other}))
    assert ship.main([str(tmp_path / "run"), "--tag", "mine", "--folder", str(folder), "--data-dir", str(data)]) == 0
    assert "resattn56_cifar.mine: 91.75% top-1" in capsys.readouterr().out
    found = load_file(folder / "resattn56_cifar.mine.safetensors")
    changed = {key for key, tensor in weights.items() if not torch.equal(found[key], tensor)}
    assert found.keys() == weights.keys() and changed <= {"norm.weight", "norm.bias", "head.fc.weight"}
    plain, shipped_one = (timm.create_model("resattn56_cifar").eval() for _ in range(2))
    plain.load_state_dict(weights)
    shipped_one.load_state_dict(found)
    x = normalize(load_cifar(data, "train")[0])
    with torch.inference_mode():
        assert torch.equal(plain(x), shipped_one(x))
        size = shipped_one.forward_head(shipped_one.forward_features(x), pre_logits=True).square().mean().sqrt()
    assert 0.5 < size < 2
    manifest = shipped.read_manifest(folder)
    assert manifest["other.safetensors"] == other
    entry = manifest["resattn56_cifar.mine.safetensors"]
    content = (folder / "resattn56_cifar.mine.safetensors").read_bytes()
    assert (entry["size"], entry["sha256"]) == (len(content), hashlib.sha256(content).hexdigest())
    assert (entry["accuracy"], entry["seed"], entry["commit"]) == (91.75, 0, "aaa, abc")
    assert entry["schedule"] == (
        "40 epochs of batch 128; nmuon, lr 0.02 onecycle, weight decay 0.02; norms' lr times 0.1; crop and flip; "
        "crop 24; prune 0.35; smoothing 0.1; cutout 8; moving average of the weights (0.999); "
        "2.0 hours on some CPU, 2 cores, 1 used"
    )
    assert {path.name for path in folder.iterdir()} == {"manifest.json", "resattn56_cifar.mine.safetensors"}


def test_threads_of_all_sessions_are_told(tmp_path):
    finished_run(tmp_path / "run")
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    result["sessions"] += [{"hardware": result["hardware"] | {"threads": 2}}]
    assert ship.schedule_text(result, "ema").endswith("2.0 hours on some CPU, 2 cores, 1 or 2 used")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (dict(held_out="validation, 5000 images"), "its error is that on validation, 5000 images"),
        (dict(model_kwargs={"depths": [1, 1, 1]}), "its network has the arguments"),
        (dict(label_noise=0.1), "its labels are noisy"),
        (dict(images=1000), "it was trained on a part of the training set"),
        (dict(mean="pixel"), "its input is not that of the network's data configuration"),
        (dict(error_ema=None), "it has no moving average"),
        (dict(start={"file": "x"}), "it began with other weights, so that its command alone does not make it"),
    ],
)
def test_a_run_that_is_not_fit_to_ship(tmp_path, capsys, data, changes, message):
    finished_run(tmp_path / "run", **changes)
    (tmp_path / "weights").mkdir()
    with pytest.raises(SystemExit, match="2"):
        ship.main([str(tmp_path / "run"), "--folder", str(tmp_path / "weights"), "--data-dir", str(data)])
    assert f"this run is not fit to ship: {message}" in capsys.readouterr().err
    assert not list((tmp_path / "weights").iterdir())


def test_files_that_do_not_ship(tmp_path, data, monkeypatch):
    monkeypatch.setattr(ship, "MAX_BYTES", 1000)
    with pytest.raises(ValueError, match="this is no finished run"):
        ship.ship(tmp_path, "t", "ema", tmp_path, data)
    weights = finished_run(tmp_path / "run")
    for tensors, message in (
        ({**weights, "head.fc.bias": torch.full((10,), torch.nan)}, "head.fc.bias is not finite"),
        ({"head.fc.bias": weights["head.fc.bias"]}, "does not fit resattn56_cifar"),
        (weights, "weights that ship have less than 1000"),
    ):
        save_file(tensors, tmp_path / "run" / "ema.safetensors")
        with pytest.raises(ValueError, match=message):
            ship.ship(tmp_path / "run", "t", "ema", tmp_path, data)
    assert {path.name for path in tmp_path.iterdir()} == {"run"}


def test_a_run_of_changed_code_does_not_ship(tmp_path, capsys, monkeypatch, data):
    finished_run(tmp_path / "run", commit="abc+changes")
    (tmp_path / "weights").mkdir()
    monkeypatch.setattr(ship, "WEIGHTS", tmp_path / "weights")
    with pytest.raises(SystemExit, match="2"):
        ship.main([str(tmp_path / "run"), "--folder", str(tmp_path / "weights"), "--data-dir", str(data)])
    assert "a result is recorded of a clean commit only, not of abc+changes" in capsys.readouterr().err
    assert not list((tmp_path / "weights").iterdir())


def test_the_manifest_says_what_the_records_say():
    for file, entry in shipped.read_manifest().items():
        run = json.loads((ship.RECORDS / file.removesuffix(".safetensors") / "result.json").read_text())
        assert entry["accuracy"] in [round(100 - run[key], 2) for key in ("error", "error_ema") if run[key] is not None]
        assert (entry["commit"], entry["seed"]) == (commits_of(run), run["seed"])
