"""Memory of a step: what is counted, and how it is told."""

import subprocess
import sys

import pytest
import torch
from helpers import tiny
from torch import nn

from benchmarks.common.files import write_csv, write_json
from benchmarks.common.provenance import ROOT
from benchmarks.speed import contenders, memory, probe
from benchmarks.speed.contenders import Contender


def record(folder):
    hardware = {"cpu": "some CPU, 2 cores", "threads": 2, "gpu": None}
    write_json(folder / "record.json", {"command": "run it", "hardware": hardware, "versions": {"torch": "2"}})
    return folder


def test_saved_for_backward_counts_each_activation_once():
    weight = nn.Parameter(torch.randn(8, 8))
    x = torch.randn(4, 8)
    # matmul saves x and weight, both known; exp saves its result, whose square is computed from the same storage
    saved = probe.saved_for_backward(lambda: (x @ weight).exp().square().sum(), (weight, x))
    assert saved == 4 * 8 * 4


def test_checkpointing_saves_less_for_backward():
    images = torch.randn(2, 3, 32, 32)
    sizes = {}
    for path in ("eager", "checkpointing"):
        step = contenders.TrainingStep(Contender("tiny", path), tiny(), images)
        sizes[path] = probe.saved_for_backward(step.loss, step.model.parameters())
    assert 0 < sizes["checkpointing"] < sizes["eager"] / 2


@pytest.mark.skipif(not probe.can_measure("cpu"), reason="needs Linux")
def test_peak_sees_what_was_allocated_and_freed():
    """In a process of its own, as the benchmark measures: here a test may have let the process retain its memory."""
    code = """
import torch
from benchmarks.speed import probe
for _ in range(2):  # freed memory of the first call does not hide the second one's
    print(probe.peak_above(lambda: torch.ones(16 * 2**20)))
"""
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    peaks = [int(line) for line in done.stdout.split()]
    assert len(peaks) == 2
    assert all(60 * 2**20 < peak < 80 * 2**20 for peak in peaks)  # the kernel counts in batches of pages


def memory_rows():
    def row(network, path, layout, peak, saved, task="training"):
        return {
            "task": task, "network": network, "path": path, "layout": layout, "dtype": "float32",
            "status": "measured", "batch_size": 16, "img_size": 224, "peak_mib": peak, "saved_mib": saved,
        }  # fmt: skip

    rows = [
        row("pytorchcv:resattnet56", "eager", "contiguous", 4000.0, 2000.0),
        row("resattn56", "eager", "channels_last", 3000.0, 1600.0),
        row("resattn56", "checkpointing", "channels_last", 1200.0, 400.0),
        row("resattn56", "eager", "channels_last", 500.0, None, "inference"),
    ]
    memory.add_ratios(rows)
    return rows


def test_memory_is_compared_with_pytorchcv(tmp_path):
    rows = memory_rows()
    assert [row.get("saved_vs_eager") for row in rows] == [1, 1, 0.25, None]
    write_csv(record(tmp_path / "memory") / "results.csv", memory.FIELDS, rows)
    text = memory.as_markdown(tmp_path)
    assert "| `resattn56`, eager, gradient checkpointing, channels_last | float32 | 1,200 | 30% | 400 | 20% |" in text
    assert "| `resattn56`, eager, channels_last | float32 | 500 |  |" in text


def test_memory_of_a_process_that_fails_is_reported(monkeypatch):
    monkeypatch.setattr(memory.sys, "executable", "false")
    assert memory.measure_apart("training", Contender("tiny"), 2, 32, "cpu") == {
        "status": "failed", "reason": "exit status 1",
    }  # fmt: skip
