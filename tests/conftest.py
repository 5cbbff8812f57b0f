"""Shared fixtures: one thread, fixed seeds, no network."""

import os
import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parent.parent))  # for benchmarks/
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import pytest
import timm
import torch

torch.set_num_threads(1)  # small networks: threads cost more than they bring


@pytest.fixture(autouse=True)
def _seed() -> None:
    timm.utils.random_seed(0)  # also NumPy's, by which timm's Mixup draws, and Python's
