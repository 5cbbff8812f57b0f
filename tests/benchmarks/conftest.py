"""A CIFAR of random images, and the trainer's command on it."""

from pathlib import Path

import pytest
from cifar_runs import SMALL
from helpers import random_cifar

if not (Path(__file__).resolve().parents[2] / "benchmarks").is_dir():
    collect_ignore_glob = ["test_*.py"]  # a source distribution has no benchmarks


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    random_cifar(folder, 70, 30)
    return folder


@pytest.fixture
def train(data, tmp_path):
    """Call the command; the run's folder is ``tmp_path / out``."""
    from benchmarks.cifar.__main__ import main

    def run(*arguments, out="out", data_dir=data):
        given = map(str, arguments)
        return main([*SMALL, "--data-dir", str(data_dir), "--device", "cpu", "--out", str(tmp_path / out), *given])

    return run
