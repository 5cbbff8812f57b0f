"""The cases of `benchmarks.reliability`, fewer of them, and what the command makes of their outcomes."""

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings

from benchmarks.reliability import __main__ as command
from benchmarks.reliability import fuzz, mutants, numerics
from benchmarks.reliability.tally import Tally, WrongError

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
@settings(max_examples=100, deadline=None, derandomize=True)  # the command tries others
@given(fuzz.cases())
def test_a_network_computes_or_says_why_not(case):
    assert fuzz.check(case) in ("computed", "refused")


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="forks, and limits its memory")
@pytest.mark.parametrize(("part", "cases", "tried"), [("weights", 60, 300), ("writers", 5, 40)])
def test_nothing_crashes_or_is_wrong(tmp_path, part, cases, tried):
    options = ["--part", part, "--cases", str(cases), "--out", str(tmp_path / "found.json")]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.reliability", *options], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads((tmp_path / "found.json").read_text())[part]
    assert found["failures"] == []
    assert sum(counts["tried"] for counts in found["kinds"].values()) >= tried
    assert all(counts["computed"] + counts["refused"] == counts["tried"] for counts in found["kinds"].values())


def test_a_tally_tells_errors_apart():
    tally = Tally()

    def fail(error):
        raise error

    tally.try_("a", "x", lambda: "computed")
    tally.try_("a", "y", lambda: fail(WrongError("half")))
    tally.try_("b", "z", lambda: fail(KeyError("k")))
    assert tally.kinds["a"] == dict(tried=2, computed=1, refused=0, crashed=0, wrong=1)
    assert tally.kinds["b"] == dict(tried=1, computed=0, refused=0, crashed=1, wrong=0)
    assert [(failure["tried"], failure["why"]) for failure in tally.failures] == [("y", "half"), ("z", "KeyError: 'k'")]


def test_parts_are_recorded_beside_each_other(tmp_path, monkeypatch, capsys):
    def run(tally, count, seed):
        for i in range(count):
            tally.add("kind", "wrong" if i == 6 else "computed", i, "why")
        return {"seed": seed}

    monkeypatch.setattr(fuzz, "run", run)
    out = ["--out", str(tmp_path / "found.json")]
    assert command.main(["--part", "fuzz", "--cases", "5", "--seed", "3", *out]) == 0
    assert command.main(["--part", "fuzz", "--cases", "7", *out]) == 1
    assert "kind: wrong: why" in capsys.readouterr().err
    (tmp_path / "found.json").write_text(
        json.dumps({**json.loads((tmp_path / "found.json").read_text()), "writers": {"kinds": {}}})
    )
    assert command.main(["--part", "fuzz", "--cases", "2", *out]) == 0
    found = command.read_record(tmp_path / "found.json")
    assert found.keys() == {"fuzz", "writers"} and found["fuzz"]["kinds"]["kind"]["tried"] == 2
    assert found["fuzz"]["command"] == "python -m benchmarks.reliability --part fuzz --cases 2 --seed 0"
    assert "| Networks under random options | kind | 2 | 2 | 0 | 0 | 0 |" in command.block(tmp_path / "found.json")


def test_what_is_recorded_is_not_replaced_by_less(capsys):
    with pytest.raises(SystemExit, match="2"):
        command.main(["--part", "numerics"])
    assert "give --data-dir DIR" in capsys.readouterr().err


def test_a_part_that_dies_is_a_failure(tmp_path, monkeypatch):
    died = argparse.Namespace(returncode=-9)
    monkeypatch.setattr(command, "subprocess", argparse.Namespace(run=lambda call, check: died))
    assert command.main(["--part", "fuzz", "weights", "--out", str(tmp_path / "found.json")]) == 1


def test_lines_to_break_are_there_once():
    for mutant in mutants.MUTANTS:
        assert (ROOT / "timm_resattn" / mutant.file).read_text().count(mutant.line) == 1, mutant
        assert (ROOT / mutant.tests).is_file()


def test_precisions_stay_within_their_bounds():
    """On noise with the images' statistics, where no data set is at hand; the record is of test images."""
    images = torch.randint(0, 256, (20, 3, 32, 32), dtype=torch.uint8)
    for precision, (_, distance) in numerics.compare("resattn56_cifar", images).items():
        assert distance <= numerics.BOUNDS[precision][1]


def test_random_weights_stay_finite():
    found = numerics.magnitudes("resattn452_cifar", 32)
    assert all(0 < value < numerics.LARGEST for value in found.values())
    assert found["calibrated"] < 1e-3 * found["untouched"]  # what docs/questions.md says
