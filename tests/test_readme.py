"""What the README and the results say is what the code gives."""

import json
import re
from pathlib import Path

import pytest
import timm

import timm_resattn  # noqa: F401

ROOT = Path(__file__).resolve().parent.parent
README = ROOT / "README.md"

pytestmark = pytest.mark.skipif(not README.exists(), reason="a source distribution has neither README nor benchmarks")


def test_model_table_is_in_step(monkeypatch):
    monkeypatch.syspath_prepend(ROOT)
    from benchmarks import models, readme

    rows = models.sizes()
    assert models.RESULTS.read_text() == models.as_csv(rows), f"run {models.COMMAND}"
    text = README.read_text()
    assert readme.with_block(text, models.COMMAND, models.as_markdown(rows)) == text, f"run {models.COMMAND}"


def test_table_of_runs_is_in_step(monkeypatch):
    monkeypatch.syspath_prepend(ROOT)
    from benchmarks import readme, record_train

    text = README.read_text()
    assert readme.with_block(text, record_train.COMMAND, record_train.as_markdown()) == text
    runs = [json.loads(path.read_text()) for path in record_train.RESULTS.glob("*.json")]
    assert runs
    for run in runs:
        assert {"command", "commit", "hardware", "versions", "seed", "schedule", "epochs"} <= run.keys()
        assert run["top1"] == run["epochs"][-1]["eval_top1"]


def test_table_of_weights_is_in_step(monkeypatch):
    monkeypatch.syspath_prepend(ROOT)
    from benchmarks import readme, ship
    from timm_resattn.shipped import read_manifest

    text, manifest = README.read_text(), read_manifest()
    assert readme.with_block(text, ship.COMMAND, ship.as_markdown(manifest)) == text
    for file, entry in manifest.items():
        name = file.removesuffix(".safetensors")
        run = json.loads((ship.RECORDS / f"{name}.json").read_text())
        assert entry["accuracy"] in [round(100 - run[key], 2) for key in ("error", "error_ema") if run[key] is not None]
        assert (entry["commit"], entry["seed"]) == (run["commit"], run["seed"])
        runs = [member for member in run["average"] if "log" in member] if "average" in run else [run]
        for part in runs:
            epochs = part.get("schedule", part.get("run"))["epochs"]
            done = epochs if part.get("updates", 1) else 0  # a mean may have a run's start among it
            assert [row["epoch"] for row in part["log"]] == [*range(1, done + 1)]


def test_table_of_starts_is_in_step(monkeypatch):
    monkeypatch.syspath_prepend(ROOT)
    from benchmarks import readme, transplant

    text = README.read_text()
    table = transplant.as_markdown(json.loads((transplant.RESULTS / "transplant.json").read_text()))
    assert readme.with_block(text, transplant.COMMAND, table) == text


def test_every_model_named_exists():
    names = set(re.findall(r"\bresattn(?:ext|_inception)?\d+\w*", README.read_text()))
    assert names >= {"resattn56", "resattn92", "resattn56_cifar"}
    assert names <= set(timm.list_models(module="resattn")) | {"resattn56_cifar10"}


def test_every_link_to_a_file_exists():
    links = re.findall(r"\]\((?!https?:|#)([^)#]+)", README.read_text())
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []
