"""Put a finished run of `benchmarks.cifar`, or a mean of `benchmarks.cifar.average`, among the weights that ship.

    python -m benchmarks.ship RUN_FOLDER [--tag TAG] [--weights ema|model] [--folder DIR]

Writes ``MODEL.TAG.safetensors`` and its entry in ``manifest.json`` to ``timm_resattn/weights/``, the run's result and
log to ``benchmarks/results/cifar/`` and the README's table, and prints the line for ``default_cfgs`` in
``timm_resattn/resattn.py``; with another ``--folder``, weights and manifest only. Which weights are taken, the moving
average or the last ones, is a choice to make before the test error is looked at. A run that is not fit to ship is
refused: one that is not at its end, was not measured on the whole test set, has a network, labels, training images or
an input other than those of its name.
"""

import argparse
import hashlib
import json
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import timm
import torch
from safetensors.torch import load_file

import timm_resattn  # noqa: F401  registers the models
from benchmarks.cifar.recipe import CHANNEL_MEAN
from benchmarks.cifar.run import Run, command_of, updates_per_epoch
from benchmarks.common.files import save_atomically
from benchmarks.common.provenance import write_json
from benchmarks.paper_results import RESULTS
from benchmarks.paper_tables import TABLES
from benchmarks.readme import write_block
from timm_resattn.shipped import WEIGHTS, read_manifest

COMMAND = "python -m benchmarks.ship"
RECORDS = RESULTS / "cifar"
DATASETS = {"cifar10": "CIFAR-10", "cifar100": "CIFAR-100"}
MAX_BYTES = 16 * 2**20
TEST_IMAGES = 10_000


def check_fit(result: dict[str, Any], weights: str) -> None:
    """Raise a `ValueError` that says why a run is not fit to ship."""
    schedule = result["schedule"]
    wrong = {
        f"its error is that on {result['held_out']}": result["held_out"] != f"test, {TEST_IMAGES} images",
        f"its network has the arguments {schedule['model_kwargs']}": bool(schedule["model_kwargs"]),
        "its labels are noisy": schedule["label_noise"] > 0,
        "it was trained on a part of the training set": schedule["images"] is not None,
        "its input is not that of the network's data configuration": schedule["mean"] != CHANNEL_MEAN,
        "it has no moving average": weights == "ema" and result["error_ema"] is None,
    }
    reasons = [reason for reason, holds in wrong.items() if holds]
    if reasons:
        raise ValueError(f"this run is not fit to ship: {', and '.join(reasons)}")


def commands_before(start: dict[str, Any] | None) -> list[str]:
    """Commands that made what a run began with, the first one first; of a file of weights, those in the manifest."""
    if not start:
        return []
    if "average" in start:
        return [*commands_of(start["average"]["members"]), start["average"]["command"]]
    if "file" in start:
        return [start["manifest"]["command"]] if "manifest" in start else []
    run = Run.from_dict(start["run"])
    epochs = epochs_of(start)
    stop = ""
    if not start["updates"]:
        stop = " --max-seconds 0"
    elif epochs < run.recipe.epochs:
        stop = f" --stop-epoch {epochs}"
    return [*commands_before(start["start"]), command_of(run) + stop]


def commands_of(members: Sequence[dict[str, Any]]) -> list[str]:
    """Commands that made the weights which were averaged, each once."""
    return list(dict.fromkeys(command for member in members for command in commands_before(member)))


def epochs_of(start: dict[str, Any]) -> int:
    """Whole epochs that the run behind ``start`` had trained for."""
    recipe = Run.from_dict(start["run"]).recipe
    return start["updates"] // updates_per_epoch(start["training_images"], recipe.prune, recipe.batch_size)


def run_text(schedule: dict[str, Any], epochs: str, seconds: float | None, last: Sequence[str] = ()) -> str:
    """A run in a line: its recipe, what is told ``last`` of it, and its hours if they are known."""
    named = ("revive", "crop", "prune", "smoothing", "cutout", "mixup", "cutmix")
    slowed = schedule.get("fallback_lr_scale", 1.0)
    return "; ".join(
        [
            f"{epochs} epochs of batch {schedule['batch_size']}",
            f"{schedule['opt']}, lr {schedule['lr']} {schedule['sched']}, weight decay {schedule['weight_decay']}",
            *([f"norms' lr times {slowed}"] if slowed != 1 else []),
            "crop and flip",
            *(f"{name} {schedule[name]}" for name in named if schedule.get(name)),
            *([f"{seconds / 3600:.1f} hours"] if seconds else []),
            *last,
        ]
    )


def start_text(start: dict[str, Any], model: str, told: set[str]) -> str:
    """How the weights came about that a run of ``model`` began with; what was ``told`` before is only named."""
    if "average" in start:
        return mean_text(start["average"]["members"], model, told)
    if "file" in start:
        name = f"{start['file']}, sha256 {start['sha256'][:8]}"
        if name in told or "manifest" not in start:
            return f"weights ({name})"
        told.add(name)
        return f"{start['manifest']['schedule']} ({name})"
    run = start["run"]
    name = f"{run['model']} of seed {run['seed']} after {epochs_of(start)} of {run['epochs']} epochs"
    if name in told:
        return name
    told.add(name)
    if not start["updates"]:
        begun = start_text(start["start"], run["model"], told) if start["start"] else run["model"]
        return f"{begun}, channels dead on {run['revive']} images revived" if run.get("revive") else begun
    before = f"{start_text(start['start'], run['model'], told)}; then " if start["start"] else ""
    epochs = f"{epochs_of(start)} of {run['epochs']}"
    own = run_text(run, epochs, start.get("training_seconds"), [f"seed {run['seed']}"])
    return f"{before}{own}" if run["model"] == model else f"{before}{run['model']} for {own}; deepened"


def mean_text(members: Sequence[dict[str, Any]], model: str, told: set[str]) -> str:
    """Which weights a mean is of."""
    return "mean of " + " and ".join(f"[{start_text(member, model, told)}]" for member in members)


def schedule_text(result: dict[str, Any], weights: str) -> str:
    """How the weights came about, in a line."""
    schedule, hardware = result["schedule"], result["hardware"]
    where = hardware["gpu"] or f"{hardware['cpu']}, {hardware['threads']} used"
    if "average" in result:
        return f"{mean_text(result['average'], schedule['model'], set())}; on {where}"
    average = [f"moving average of the weights ({schedule['ema_decay']})"] if weights == "ema" else []
    own = run_text(
        schedule, schedule["epochs"], None, [*average, f"{result['training_seconds'] / 3600:.1f} hours on {where}"]
    )
    start = result.get("start")
    return f"{start_text(start, schedule['model'], set())}; then {own}" if start else own


def ship(run: Path, tag: str, weights: str, folder: Path) -> tuple[str, dict[str, Any]]:
    """Copy a run's weights to ``folder`` and enter them in its manifest.

    Returns:
        The pretrained name and the manifest's entry.

    Raises:
        ValueError: The run is not fit to ship.
    """
    if not (run / "result.json").is_file():
        raise ValueError(f"{run} holds no result.json: this is no finished run of benchmarks.cifar")
    result = json.loads((run / "result.json").read_text())
    check_fit(result, weights)
    source = run / f"{weights}.safetensors"
    content = source.read_bytes()
    if len(content) >= MAX_BYTES:
        raise ValueError(f"{source} has {len(content)} bytes; weights that ship have less than {MAX_BYTES}")
    model_name, dataset = result["schedule"]["model"], result["schedule"]["dataset"]
    tensors = load_file(source)
    if not all(torch.isfinite(tensor).all() for tensor in tensors.values()):
        raise ValueError(f"{source} holds values that are not finite")
    try:
        timm.create_model(model_name).load_state_dict(tensors)
    except RuntimeError as error:
        raise ValueError(f"{source} does not fit {model_name}: {error}") from error
    error_percent = result["error_ema" if weights == "ema" else "error"]
    entry = {
        "sha256": hashlib.sha256(content).hexdigest(),
        "size": len(content),
        "accuracy": round(100 - error_percent, 2),
        "dataset": DATASETS[dataset],
        "command": "; ".join(
            [*commands_of(result.get("average", ())), *commands_before(result.get("start")), result["command"]]
        ),
        "commit": result["commit"],
        "schedule": schedule_text(result, weights),
        "seed": result["seed"],
    }
    name = f"{model_name}.{tag}"
    target = folder / f"{name}.safetensors"
    save_atomically(target, lambda path: shutil.copyfile(source, path))
    write_json(folder / "manifest.json", read_manifest(folder) | {target.name: entry})
    return name, entry


def record(run: Path, name: str) -> None:
    """Keep a run's result and log among the results; a mean's result holds the logs of its runs."""
    result = json.loads((run / "result.json").read_text())
    if "average" not in result:
        result["log"] = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    RECORDS.mkdir(parents=True, exist_ok=True)
    write_json(RECORDS / f"{name}.json", result)


def as_markdown(manifest: dict[str, dict[str, Any]]) -> str:
    """The weights that ship: their test error beside the paper's, and below that how they came about."""
    paper = {
        (cell.model, cell.dataset): cell.paper
        for number in ("3", "6")
        for cell in TABLES[number].cells
        if not cell.model_kwargs
    }
    lines = ["| name | data | test error | the paper's | record |", "|---|---|---:|---:|---|"]
    details = []
    for file, entry in manifest.items():
        name = file.removesuffix(".safetensors")
        dataset = next(key for key, title in DATASETS.items() if title == entry["dataset"])
        commands = entry["command"].count("; ") + 1
        published = paper.get((name.partition(".")[0], dataset))
        error = f"{100 - entry['accuracy']:.2f}% | {f'{published:.2f}%' if published else '-'}"
        lines.append(
            f"| `{name}` | {entry['dataset']} | {error} | "
            f"[{commands} command{'s' if commands > 1 else ''}](benchmarks/results/cifar/{name}.json) |"
        )
        details.append(f"- `{name}`: {entry['schedule']}; seed {entry['seed']}")
    folded = ["<details><summary>How they were trained, run by run</summary>", "", *details, "", "</details>"]
    return "\n".join([*lines, "", *folded]) + "\n"


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    parser = argparse.ArgumentParser(COMMAND, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, metavar="RUN_FOLDER", help="the --out of a finished run")
    parser.add_argument("--tag", default="cifar10", help="of the pretrained name, MODEL.TAG (default: cifar10)")
    parser.add_argument("--weights", choices=("ema", "model"), default="ema", help="default: ema")
    parser.add_argument("--folder", type=Path, default=WEIGHTS, help="default: timm_resattn/weights")
    args = parser.parse_args(argv)
    try:
        name, entry = ship(args.run, args.tag, args.weights, args.folder)
        if args.folder.resolve() == WEIGHTS:
            record(args.run, name)
            write_block(COMMAND, as_markdown(read_manifest()))
    except (OSError, ValueError) as error:
        parser.error(str(error))
    print(f"{name}: {entry['accuracy']}% top-1, {entry['size']:,} bytes. In default_cfgs, its entry is:")
    print(f'    "{name}": _cifar_cfg(file=shipped_file("{name}"), label_names=..., license="apache-2.0"),')
    return 0


if __name__ == "__main__":
    sys.exit(main())
