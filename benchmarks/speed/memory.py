"""Peak memory of a training step and of inference.

    python -m benchmarks.speed.memory [--device cpu|cuda] [--repeats N]

Each contender runs in a process of its own, ``--repeats`` times, and the median counts:

* peak: what the process holds at most during a step above what it held before, after one step to warm up. Weights and
  the optimiser's momentum are there before, so this is activations, gradients and what kernels need while they run.
  On a CPU it is the process's resident memory, freed memory handed back before; on a GPU torch's allocations.
* saved: what autograd keeps of the forward pass for backward, each storage once: exact, the same on any machine.

Writes results.csv and record.json to benchmarks/results/speed/memory/ and the tables to the pages; with other
settings than the tables', to another folder: ``--out``. On a GPU the folder's name ends in ``_cuda``.
"""

import argparse
import json
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

import torch

from benchmarks.common.files import read_csv, write_csv, write_json
from benchmarks.common.packages import MissingPackageError
from benchmarks.common.pages import write_block
from benchmarks.common.provenance import check_recordable, provenance
from benchmarks.common.tables import markdown_table
from benchmarks.speed.contenders import (
    PYTORCHCV,
    Contender,
    TrainingStep,
    build,
    check_options,
    create_network,
    images_for,
)
from benchmarks.speed.plans import inference_memory, training
from benchmarks.speed.probe import can_measure, peak_above, saved_for_backward
from benchmarks.speed.report import RECORDS, circumstances, label_of

COMMAND = "python -m benchmarks.speed.memory"
TASKS = ("training", "inference")
BATCH_SIZES = {"cpu": {"training": 16, "inference": 8}, "cuda": {"training": 128, "inference": 128}}
MIB = 2**20
FIELDS = (
    *("task", "network", "path", "layout", "dtype", "status", "reason", "batch_size", "img_size", "device"),
    *("threads", "repeats", "peak_mib", "peak_mib_min", "peak_mib_max", "saved_mib", "peak_vs_pytorchcv"),
    *("saved_vs_pytorchcv", "saved_vs_eager"),
)


def measure(task: str, contender: Contender, batch_size: int, img_size: int, device: str) -> dict[str, Any]:
    """Bytes of one contender, in this process."""
    model = create_network(contender.network).to(device)
    images = torch.randn(batch_size, 3, img_size, img_size, device=device)
    if task == "training":
        step = TrainingStep(contender, model, images)
        del model
        step()
        own = (*step.model.parameters(), *step.model.buffers(), step.images, step.labels)
        return {"saved": saved_for_backward(step.loss, own), "peak": peak_above(step, device)}
    images = images_for(contender, images)
    forward = build(contender, model.eval(), images)
    del model
    forward(images)
    return {"peak": peak_above(lambda: forward(images), device)}


def measure_apart(task: str, contender: Contender, batch_size: int, img_size: int, device: str) -> dict[str, Any]:
    """The same in a fresh process; ``status`` and ``reason`` in place of bytes if it can't be."""
    command = [sys.executable, "-m", "benchmarks.speed.memory", "--one", task, contender.name, "--device", device]
    command += ["--batch-size", str(batch_size), "--img-size", str(img_size)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        errors = re.findall(r"^[\w.]*(?:Error|Exception)\b.*", done.stderr, re.MULTILINE)
        return {"status": "failed", "reason": errors[-1][:200] if errors else f"exit status {done.returncode}"}
    return json.loads(done.stdout.strip().splitlines()[-1])


def rows_of(
    model: str, batch_size: int | None, img_size: int, device: str, repeats: int, threads: int
) -> list[dict[str, Any]]:
    """A row for each contender."""
    rows = []
    steps = [contender for contender in training(model, device) if contender.path != "compiled"]
    for task, contenders in (("training", steps), ("inference", inference_memory(model))):
        images = batch_size or BATCH_SIZES[device][task]
        for contender in contenders:
            row: dict[str, Any] = {
                "task": task,
                "network": contender.network,
                "path": contender.path,
                "layout": contender.layout,
                "dtype": contender.dtype,
                "status": "measured",
                "batch_size": images,
                "img_size": img_size,
                "device": device,
                "threads": threads,
                "repeats": repeats,
            }
            found = [measure_apart(task, contender, images, img_size, device) for _ in range(repeats)]
            failed = next((result for result in found if "status" in result), None)
            if failed:
                row.update(failed)
            else:
                peaks = [result["peak"] / MIB for result in found]
                row.update(peak_mib=median(peaks), peak_mib_min=min(peaks), peak_mib_max=max(peaks))
                if task == "training":
                    row["saved_mib"] = found[0]["saved"] / MIB
            print(f"{task} {contender.name}: {row.get('reason', row.get('peak_mib'))}", file=sys.stderr, flush=True)
            rows.append(row)
    add_ratios(rows)
    return rows


def add_ratios(rows: Sequence[dict[str, Any]]) -> None:
    """Fill in the ratios to pytorchcv's (eager, contiguous, float32), and to the same without checkpointing."""
    measured = {
        (row["task"], row["network"], row["path"], row["layout"], row["dtype"]): row
        for row in rows
        if row["status"] == "measured"
    }
    ports = {
        task: row
        for (task, network, *how), row in measured.items()
        if network.startswith(PYTORCHCV) and how == ["eager", "contiguous", "float32"]
    }
    for (task, network, _, layout, dtype), row in measured.items():
        port, eager = ports.get(task), measured.get((task, network, "eager", layout, dtype))
        if port:
            row["peak_vs_pytorchcv"] = row["peak_mib"] / port["peak_mib"]
        if task == "training":
            if port:
                row["saved_vs_pytorchcv"] = row["saved_mib"] / port["saved_mib"]
            if eager:
                row["saved_vs_eager"] = row["saved_mib"] / eager["saved_mib"]


def task_table(rows: Sequence[dict[str, str]]) -> str:
    """Peak and saved memory of a task's contenders, and what was not measured."""
    saved = any(row["saved_mib"] for row in rows)
    body = []
    for row in rows:
        columns = [("peak_mib", "peak_vs_pytorchcv"), *([("saved_mib", "saved_vs_pytorchcv")] if saved else [])]
        cells = []
        for size, ratio in columns:
            cells += [f"{float(row[size]):,.0f}" if row[size] else row["status"]]
            cells += [f"{100 * float(row[ratio]):.0f}%" if row[ratio] else ""]
        body.append((label_of(row), row["dtype"], *cells))
    header = ("", "type", "peak, MiB", "pytorchcv", *(("saved for backward, MiB", "pytorchcv") if saved else ()))
    reasons = [f"* {label_of(row)} {row['status']}: {row['reason']}" for row in rows if row["reason"]]
    return markdown_table(header, body, text_columns=2) + "\n".join(["", *reasons, ""] if reasons else [])


def as_markdown(records: Path) -> str:
    """The tables of what there is."""
    blocks = []
    for folder in (records / "memory", records / "memory_cuda"):
        rows = read_csv(folder / "results.csv")
        if rows:
            blocks.append(f"{circumstances(folder)}\n")
        for task in TASKS:
            chosen = [row for row in rows if row["task"] == task]
            if chosen:
                batch, side = chosen[0]["batch_size"], chosen[0]["img_size"]
                title = {"training": "A training step", "inference": "Inference"}[task]
                blocks.append(f"**{title}, batch {batch}, {side}x{side}.**\n")
                blocks.append(task_table(chosen))
    return "\n".join(blocks)


def block() -> str:
    """This repository's results."""
    return as_markdown(RECORDS)


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(COMMAND, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="resattn56", help="default: resattn56")
    parser.add_argument("--batch-size", type=int, metavar="B", help="default: 16 to train, 8 without; on a GPU 128")
    parser.add_argument("--img-size", type=int, default=224, metavar="S", help="default: 224")
    parser.add_argument("--repeats", type=int, default=1, metavar="N", help="processes a contender; default: 1")
    parser.add_argument("--device", choices=tuple(BATCH_SIZES), default="cpu", help="default: cpu")
    parser.add_argument("--out", type=Path, default=RECORDS, help="default: benchmarks/results/speed")
    parser.add_argument("--one", nargs=2, metavar=("TASK", "CONTENDER"), help=argparse.SUPPRESS)
    return parser


def check(args: argparse.Namespace) -> None:
    """Refuse what can't be measured, before anything is.

    Raises:
        ValueError: An argument is not what it may be.
    """
    check_options(args, batch_size=2, img_size=32, repeats=1)
    if not can_measure(args.device):
        raise ValueError("a process's peak memory can be read on Linux only")
    own_settings = args.batch_size or (args.model, args.img_size) != ("resattn56", 224)
    if not args.one:
        if args.out.resolve() == RECORDS and own_settings:
            raise ValueError("give --out DIR: benchmarks/results holds the results of the default settings only")
        check_recordable(args.out)


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    parser = build_parser()
    args = parser.parse_args(argv)
    try:
        check(args)
    except (ValueError, MissingPackageError) as error:
        parser.error(str(error))
    if args.one:
        task, name = args.one
        try:
            result = measure(task, Contender(*name.split("/")), args.batch_size, args.img_size, args.device)
        except MissingPackageError as error:
            result = {"status": "skipped", "reason": str(error)}
        print(json.dumps(result))
        return 0
    origin = provenance(("pytorchcv",))
    suffix = "_cuda" if args.device == "cuda" else ""
    threads = torch.get_num_threads()
    rows = rows_of(args.model, args.batch_size, args.img_size, args.device, args.repeats, threads)
    folder = args.out / f"memory{suffix}"
    write_csv(folder / "results.csv", FIELDS, rows)
    words = sys.argv[1:] if argv is None else argv
    configuration = {key: value for key, value in vars(args).items() if key not in ("one", "out")}
    record = {"command": " ".join([COMMAND, *words]), "configuration": configuration, **origin}
    write_json(folder / "record.json", record)
    if args.out.resolve() == RECORDS:
        write_block(COMMAND, block())
    print(as_markdown(args.out))
    return 0


if __name__ == "__main__":
    sys.exit(main())
