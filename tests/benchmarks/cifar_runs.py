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
    timed = ("seconds", "processor_seconds", "images_per_second", "share_outside")
    return [{key: value for key, value in row.items() if key not in timed} for row in rows]


def several_arguments(tmp_path, *more):
    """Arguments of a command of several runs, its folders below ``tmp_path``."""
    folders = {"--data-dir": tmp_path, "--work-dir": tmp_path / "runs", "--results-dir": tmp_path / "results"}
    return [*(str(word) for pair in folders.items() for word in pair), "--device", "cpu", *more]


def end_at_once(monkeypatch, command):
    """Let the runs of a command be at their end at once, with an error of 10, 11, ...; gives those asked for."""
    from benchmarks.cifar.many import folder_of

    asked = []
    same = ("parameters", "training_images", "training_seconds", "processor_seconds", "images_per_second", "device")

    def carry_out(runs, args, data_dirs, began, done):
        for index, run in enumerate(runs):
            folder = folder_of(run, args.work_dir)
            folder.mkdir(parents=True, exist_ok=True)
            error = 10.0 + len(asked)
            asked.append(run)
            result = dict.fromkeys((*same, "command"), 1) | dict(
                sessions=[dict(commit="x")], error=error, error_ema=error - 1 if run.recipe.ema_decay else None
            )
            result |= dict(held_out="validation, 3 images", hardware=dict(cpu="c", threads=1, gpu=None))
            (folder / "result.json").write_text(json.dumps(result | dict(versions=dict(torch="2", timm="1"))))
            done(index, folder)
        return 0

    monkeypatch.setattr(command, "carry_out", carry_out)
    return asked
