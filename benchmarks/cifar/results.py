"""Finished runs as they are recorded: a folder each, and a line in a table of one schedule."""

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from filelock import FileLock

from benchmarks.cifar.run import Run
from benchmarks.common.files import as_text, read_csv, save_atomically, write_csv
from benchmarks.common.provenance import check_recordable
from benchmarks.common.tables import counted

NETWORK = ("model", "model_kwargs", "dataset", "label_noise", "seed")  # differ within a table; the rest is schedule
CIFAR_IMAGES = 50_000
KEY = ("row", "column", "seed")
OUTCOME = (
    *("seed", "error", "error_ema", "parameters", "epochs", "training_images", "held_out", "dataset", "label_noise"),
    *(
        "training_seconds",
        "processor_seconds",
        "images_per_second",
        "device",
        "cpu",
        "threads",
        "gpu",
        "torch",
        "timm",
        "commit",
        "command",
    ),
)
RECORDED = ("config.json", "result.json", "log.jsonl")


def schedule_of(run: Run) -> str:
    """What all runs of a table have in common, as JSON."""
    return json.dumps({key: value for key, value in run.as_dict().items() if key not in NETWORK})


def complete(schedule: str) -> str:
    """A schedule written before recipes had all of today's values, with those it lacks at their defaults."""
    return schedule_of(Run.from_dict({"model": "", **json.loads(schedule)}))


def commits_of(result: Mapping[str, Any]) -> str:
    """The commits that trained a run, in order: a run of several sessions may have several."""
    return ", ".join(dict.fromkeys(session["commit"] for session in result.get("sessions", [result])))


def outcome_of(folder: Path, run: Run) -> dict[str, Any]:
    """What came out of a finished run in ``folder``, and how: the columns `OUTCOME`."""
    result = json.loads((folder / "result.json").read_text())
    same = ("error", "error_ema", "parameters", "training_images", "held_out", "training_seconds", "images_per_second")
    hardware, versions = result["hardware"], result["versions"]
    return {
        **{name: result[name] for name in (*same, "device", "command")},
        "commit": commits_of(result),
        "processor_seconds": result.get("processor_seconds"),
        **{name: hardware[name] for name in ("cpu", "threads", "gpu")},
        **{name: versions[name] for name in ("torch", "timm")},
        "seed": run.seed, "epochs": run.recipe.epochs, "dataset": run.dataset, "label_noise": run.label_noise,
    }  # fmt: skip


def errors_by_seed(rows: Sequence[Mapping[str, str]]) -> dict[str, float]:
    """A network's errors in percent by seed."""
    return {row["seed"]: float(row["error"]) for row in rows}


def seeds_of(rows: Sequence[Mapping[str, str]]) -> list[str]:
    """The seeds of some lines, in order."""
    return sorted({row["seed"] for row in rows}, key=int)


def machines_of(rows: Sequence[Mapping[str, str]]) -> str:
    """What networks were trained on: the GPUs, or the processors with their threads."""
    found = {row["gpu"] or f"{row['cpu']}, {counted(int(row['threads']), 'thread')}" for row in rows}
    return "; ".join(sorted(found))


def command_of(command: str, rows: Sequence[Mapping[str, str]]) -> str:
    """The command of several runs that makes these lines."""
    arguments = Run.from_dict({"model": "", **json.loads(rows[0]["schedule"])}).arguments()[2:]
    return " ".join([command, "--data-dir DIR", *arguments, "--seeds", *seeds_of(rows)])


def check_run(run: Path, record: Path) -> None:
    """Raise a `ValueError` if ``record`` is among this repository's results and a commit that trained is not clean."""
    for session in json.loads((run / "result.json").read_text())["sessions"]:
        check_recordable(record, session["commit"])


def record_run(run: Path, record: Path) -> None:
    """Copy a finished run's configuration, result and log to ``record``; a `ValueError` as of `check_run`."""
    check_run(run, record)
    for name in RECORDED:
        save_atomically(record / name, lambda path, name=name: shutil.copyfile(run / name, path))


def images_seen(schedule: str) -> int:
    """Training images that a network of that schedule sees, counted each time."""
    values = json.loads(schedule)
    return values["epochs"] * (values["images"] or CIFAR_IMAGES)


class Results:
    """A results file: lines of one schedule, replaced one by one as runs end.

    Raises:
        ValueError: The file holds other schedules' lines, for which more was trained, and ``replace`` is not set.
    """

    def __init__(self, path: Path, fields: Sequence[str], schedule: str, replace: bool = False) -> None:
        self.path, self.fields, self.schedule = path, fields, schedule
        rows = read_csv(path)
        longer = any(images_seen(row["schedule"]) > images_seen(schedule) for row in rows)
        if longer and not replace:
            raise ValueError(
                f"{path} holds runs of a longer schedule; give --results-dir to write elsewhere, or --replace"
            )

    def rows(self) -> list[dict[str, str]]:
        """The file's lines of this schedule."""
        rows = [row for row in read_csv(self.path) if complete(row["schedule"]) == self.schedule]
        return [row | {"schedule": self.schedule} for row in rows]

    def add(self, row: dict[str, Any]) -> None:
        """Put a line in, in place of an earlier one of the same network and seed, as other commands may meanwhile."""
        line = {name: as_text(row[name]) for name in self.fields}
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(self.path.with_name(".lock")):
            others = [old for old in self.rows() if any(old[key] != line[key] for key in KEY)]
            write_csv(self.path, self.fields, [*others, line])
