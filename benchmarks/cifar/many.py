"""Several runs of `benchmarks.cifar` in one command: each in a process, kept by its content, some at a time."""

import argparse
import hashlib
import json
import math
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from benchmarks.cifar.arguments import add_device_arguments, add_recipe_arguments, check_least, device_of
from benchmarks.cifar.results import record_run
from benchmarks.cifar.run import Run
from benchmarks.common.provenance import ROOT, check_recordable


def add_arguments(parser: argparse.ArgumentParser, recipe: str, results_dir: Path) -> None:
    """What commands of several runs have in common; ``recipe`` and ``results_dir`` are the default ones."""
    parser.add_argument("--data-dir", type=Path, required=True, help="CIFAR-10; see benchmarks.cifar.data.load_cifar")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], metavar="S", help="default: 0")
    parser.add_argument("--images", type=int, metavar="N", help="train on the first N training images (default: all)")
    parser.add_argument("--jobs", type=int, default=1, metavar="J", help="networks trained at a time (default: 1)")
    parser.add_argument("--eval-every", type=int, default=0, metavar="N", help="also measure every N epochs")
    parser.add_argument("--max-seconds", type=float, metavar="S", help="stop with checkpoints after S seconds, exit 0")
    parser.add_argument("--work-dir", type=Path, default=ROOT / "runs" / "paper", help="default: runs/paper")
    default = results_dir.relative_to(ROOT)
    parser.add_argument("--results-dir", type=Path, default=results_dir, help=f"default: {default}")
    parser.add_argument("--replace", action="store_true", help="replace results of a longer schedule")
    add_device_arguments(parser)
    add_recipe_arguments(parser, recipe)


def check_arguments(args: argparse.Namespace) -> None:
    """Raise a `ValueError` unless the values of `add_arguments` are such that they may be."""
    device_of(args.device)
    check_recordable(args.results_dir)
    check_least("--jobs", args.jobs, 1)
    check_least("--eval-every", args.eval_every, 0)
    check_least("--max-seconds", args.max_seconds, 0)
    if not args.data_dir.is_dir():
        raise ValueError(f"--data-dir {args.data_dir} is no folder")


def folder_of(run: Run, work_dir: Path) -> Path:
    """The folder of a run: its content decides it."""
    digest = hashlib.sha256(json.dumps(run.as_dict(), sort_keys=True).encode()).hexdigest()
    return work_dir / f"{run.model}_seed{run.seed}_{digest[:12]}"


def train_all(
    work: list[tuple[Run, Path]],
    command: Callable[[Run, Path], list[str]],
    jobs: int,
    deadline: float,
    done: Callable[[int], None],
) -> int:
    """Train what is not finished yet, ``jobs`` at a time; call ``done`` with the index of each that is.

    Returns 0, also where time ran out, or the exit status of the first run that failed or was told to stop.
    """
    waiting = deque(enumerate(work))
    active: dict[int, subprocess.Popen] = {}
    status = 0

    def stop(*_: Any) -> None:
        waiting.clear()
        for process in active.values():
            process.terminate()

    previous = signal.signal(signal.SIGTERM, stop)
    try:
        while waiting or active:
            if waiting and len(active) < jobs:
                index, (run, folder) = waiting.popleft()
                left = deadline - time.monotonic()
                if is_finished(folder):
                    done(index)
                elif left > 0:
                    limit = [] if math.isinf(left) else ["--max-seconds", f"{left:.0f}"]
                    active[index] = subprocess.Popen(command(run, folder) + limit, cwd=ROOT)
                continue
            ended = {index: process for index, process in active.items() if process.poll() is not None}
            for index, process in ended.items():
                del active[index]
                if process.returncode:
                    status = status or process.returncode
                    waiting.clear()
                elif is_finished(work[index][1]):
                    done(index)
            time.sleep(0 if ended else 0.1)
    finally:
        signal.signal(signal.SIGTERM, previous)
        for process in active.values():  # after an error
            process.terminate()
    return status


def is_finished(folder: Path) -> bool:
    """Whether the run in ``folder`` has come to its end."""
    return (folder / "result.json").is_file()


def carry_out(
    runs: list[Run],
    args: argparse.Namespace,
    data_dirs: Mapping[str, Path],
    began: float,
    done: Callable[[int, Path], None],
) -> int:
    """Train the runs as the arguments of `add_arguments` say and record each; returns the command's exit status.

    Args:
        runs: What is to be trained.
        args: The values of `add_arguments`.
        data_dirs: The folder of each data set.
        began: When the command began, by `time.monotonic`.
        done: Called with the index and the folder of each run that is at its end, also of those that were before.
    """
    work = [(run, folder_of(run, args.work_dir)) for run in runs]

    def command(run: Run, folder: Path) -> list[str]:
        where = ["--data-dir", str(data_dirs[run.dataset].resolve()), "--device", args.device]
        how = ["--eval-every", str(args.eval_every), *(["--compile"] if args.compile else [])]
        out = ["--resume", "--out", str(folder.resolve())]
        return [sys.executable, "-m", "benchmarks.cifar", *run.arguments(), *where, *how, *out]

    refused = []

    def record(index: int) -> None:
        folder = work[index][1]
        try:
            record_run(folder, args.results_dir / "runs" / folder.name)
        except ValueError as error:
            refused.append(folder)
            print(f"{folder}: {error}", file=sys.stderr)
        else:
            done(index, folder)

    deadline = math.inf if args.max_seconds is None else began + args.max_seconds
    status = train_all(work, command, args.jobs, deadline, record)
    left = sum(not is_finished(folder) for _, folder in work)
    if left:
        print(f"{left} of {len(work)} runs are not at their end; the same command goes on with them", file=sys.stderr)
    return status or int(bool(refused))
