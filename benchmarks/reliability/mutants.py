"""The ten lines that matter most, each broken in a copy of the repository: tests that pass must fail.

Each mutant names the file of tests that is to catch it.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.common.provenance import ROOT
from benchmarks.reliability.tally import Tally


@dataclass(frozen=True)
class Mutant:
    """A line of the package, what it is made, and the tests that catch it."""

    file: str
    line: str
    broken: str
    tests: str


CAFFE, FOLD = "tests/checkpoints/test_caffe.py", "batch_norm.eps, scale, shift)"
MUTANTS = (
    Mutant("attention.py", "(trunk, trunk, mask)", "(trunk, trunk, mask, value=2)", CAFFE),
    Mutant("mask.py", "y = inner + skip", "y = inner", CAFFE),
    Mutant("mask.py", "align_corners=True", "align_corners=False", CAFFE),
    Mutant("mask.py", "skip = skip + y", "skip = skip", "tests/checkpoints/test_adapt.py"),
    Mutant("units.py", "self.downsample(preact)", "self.downsample(x)", CAFFE),
    Mutant("fold.py", FOLD, "batch_norm.eps, scale, 1.01 * shift)", "tests/test_fold.py"),
    Mutant("grad_checkpointing.py", "norm.num_batches_tracked = 0.0, None", "_ = 0.1, None", "tests/test_timm.py"),
    Mutant("checkpoints/read.py", "weights_only=True", "weights_only=False", "tests/test_convert_refusals.py"),
    Mutant("checkpoints/place.py", 'problems["missing"].append(theirs)', "pass", CAFFE),
    Mutant("shipped.py", '[path.name]["sha256"]:', '[path.name]["sha256"] and False:', "tests/test_shipped_weights.py"),
)
CASES = len(MUTANTS)


def run_tests(tests: str, copy: Path) -> subprocess.CompletedProcess[str]:
    """pytest over a file of tests in a copy of the repository."""
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", tests]
    environment = {**os.environ, "PYTHONPATH": str(copy), "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run(command, cwd=copy, env=environment, capture_output=True, text=True, check=False)


def caught(mutant: Mutant, whole: dict[str, subprocess.CompletedProcess[str]]) -> str:
    """``computed`` if the tests pass and fail on the mutant; an error if not, or if the line is not there once.

    ``whole`` keeps what each file of tests gave before anything was broken.
    """
    with tempfile.TemporaryDirectory() as scratch:
        copy = Path(scratch)
        for name in ("timm_resattn", "tests", "benchmarks"):
            shutil.copytree(
                ROOT / name, copy / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__", "results")
            )
        shutil.copy(ROOT / "pyproject.toml", copy)
        path = copy / "timm_resattn" / mutant.file
        text = path.read_text()
        if text.count(mutant.line) != 1:
            raise RuntimeError(f"{mutant.file} has {mutant.line!r} {text.count(mutant.line)} times")
        if mutant.tests not in whole:
            whole[mutant.tests] = run_tests(mutant.tests, copy)
        path.write_text(text.replace(mutant.line, mutant.broken))
        runs = whole[mutant.tests], run_tests(mutant.tests, copy)
    for done, wanted in zip(runs, (0, 1), strict=True):  # of pytest: 0 all passed, 1 some failed
        if done.returncode != wanted:
            raise RuntimeError(f"exit code {done.returncode}, not {wanted}: {done.stdout[-500:]}")
    return "computed"


def run(tally: Tally, count: int, seed: int) -> dict[str, Any]:
    """Try the first so many."""
    whole: dict[str, subprocess.CompletedProcess[str]] = {}
    for mutant in MUTANTS[:count]:
        tally.try_("broken lines that tests catch", mutant, lambda mutant=mutant: caught(mutant, whole))
    return {"lines": [f"{mutant.file}: {mutant.line} -> {mutant.broken}" for mutant in MUTANTS[:count]]}
