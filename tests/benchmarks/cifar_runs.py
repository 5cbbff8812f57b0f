"""A network that trains in a second, and the options of its runs."""

import json
import os
import signal

import pytest
from timm import scheduler

MODEL = "resattn56_cifar"
SMALL = [
    *("--model", MODEL, "--model-kwargs", "depths=(1,0,0)", "widths=(8,8,16)", "mask_pools=(1,1,1)"),
    *("--batch-size", "16", "--prune", "0", "--crop", "0", "--cutout", "0"),
]
STEPS = 4  # updates of an epoch over 70 images
needs_wsd = pytest.mark.skipif(not hasattr(scheduler, "WSDLRScheduler"), reason="timm has no WSD schedule")


def stop_after(monkeypatch, updates, stop):
    """Let ``stop`` be called before an update."""
    from benchmarks.cifar import trainer  # a source distribution has no benchmarks

    batch, calls = trainer.Trainer.batch, iter(range(1000))

    def counted(self, index):
        if next(calls) == updates:
            stop()
        return batch(self, index)

    monkeypatch.setattr(trainer.Trainer, "batch", counted)


def terminate():
    os.kill(os.getpid(), signal.SIGTERM)


def log_of(folder):
    rows = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    timed = ("seconds", "images_per_second", "share_outside")
    return [{key: value for key, value in row.items() if key not in timed} for row in rows]
