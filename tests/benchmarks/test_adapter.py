"""The adapter's experiment and its cost, on few images and small ones."""

import json

import pytest
from helpers import random_cifar

from benchmarks.cifar import adapter
from benchmarks.speed import adapter as cost


def test_cost_of_masks_only(capsys):
    assert cost.main(["--only", "memory", "--batch-size", "2", "--img-size", "64"]) == 0
    rows = [line.split("|")[1:-1] for line in capsys.readouterr().out.splitlines()[2:] if line]
    assert len(rows) == 6
    for masks, whole, donor in (rows[:3], rows[3:]):
        assert [float(row[2].strip(" M")) for row in (masks, whole, donor)] == [13.3, 36.8, 25.5]
        saved = [float(row[3].split()[0].replace(",", "")) for row in (masks, whole, donor)]
        assert saved[0] < saved[1] and saved[2] < saved[1]


@pytest.mark.slow
def test_experiment(tmp_path, capsys):
    random_cifar(tmp_path, train=256, test=500)
    options = ["--data-dir", str(tmp_path), "--images", "256", "--donor-epochs", "1", "--epochs", "1", "--seeds", "3"]
    command = [*options, "--work-dir", str(tmp_path / "runs"), "--out", str(tmp_path / "record.json")]
    adapter.main(command)
    record = json.loads((tmp_path / "record.json").read_text())
    found = record["by_seed"]["3"]
    assert found["start"]["updates"] == 2
    assert {arm: result["updates"] for arm, result in found["equal_epochs"].items()} == dict.fromkeys(adapter.ARMS, 2)
    sizes = [found["equal_epochs"][arm]["trainable_parameters"] for arm in ("masks", "all", "donor")]
    assert sizes[0] < sizes[1] and sizes[2] < sizes[1]
    assert found["equal_time"]["all"] == found["equal_epochs"]["all"]
    before = (tmp_path / "record.json").read_text()
    adapter.main(command)  # nothing is trained again
    assert (tmp_path / "record.json").read_text() == before
    assert "| the donor, without masks |" in capsys.readouterr().out
