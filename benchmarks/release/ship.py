"""Put a finished run of `benchmarks.cifar` among the weights that ship.

    python -m benchmarks.release.ship RUN_FOLDER --data-dir DIR [--tag TAG] [--weights ema|model] [--folder DIR]

Brings the pooled features near unit scale (`benchmarks.release.rescale`), which changes no logit, and writes
``MODEL.TAG.safetensors`` and its entry in ``manifest.json`` to ``timm_resattn/weights/``, the run's
configuration, result and log to ``benchmarks/results/cifar/MODEL.TAG/`` and the pages' table, and prints the line for
``default_cfgs`` in ``timm_resattn/resattn.py``; with another ``--folder``, weights and manifest only. Which weights are
taken, the moving average or the last ones, is a choice to make before the test error is looked at. A run that is not
fit to ship is refused: one that is not at its end, was not measured on the whole test set, began with other weights, or
has a network, labels, training images or an input other than those of its name.
"""

import argparse
import hashlib
import json
import sys
from pathlib import Path
from typing import Any

import timm
from safetensors.torch import load_file, save

import timm_resattn  # noqa: F401  registers the models
from benchmarks.cifar.data import load_cifar, normalize
from benchmarks.cifar.outputs import weights_of
from benchmarks.cifar.recipe import CHANNEL_MEAN
from benchmarks.cifar.results import check_run, commits_of, record_run
from benchmarks.common.files import save_atomically, write_json
from benchmarks.common.pages import write_block
from benchmarks.common.provenance import RESULTS
from benchmarks.common.tables import markdown_table
from benchmarks.paper.tables import TABLES
from benchmarks.release.rescale import rescale
from timm_resattn.checkpoints import check_values
from timm_resattn.shipped import WEIGHTS, read_manifest

COMMAND = "python -m benchmarks.release.ship"
RECORDS = RESULTS / "cifar"
DATASETS = {"cifar10": "CIFAR-10", "cifar100": "CIFAR-100"}
MAX_BYTES = 16 * 2**20
RESCALED_BY = 256  # training images
TEST_IMAGES = 10_000


def check_fit(result: dict[str, Any], weights: str) -> None:
    """Raise a `ValueError` that says why a run is not fit to ship."""
    schedule = result["schedule"]
    wrong = {
        f"its error is that on {result['held_out']}": result["held_out"] != f"test, {TEST_IMAGES} images",
        f"its network has the arguments {schedule['model_kwargs']}": bool(schedule["model_kwargs"]),
        "its labels are noisy": schedule["label_noise"] > 0,
        "it was trained on a part of the training set": schedule["images"] is not None,
        "it began with other weights, so that its command alone does not make it": "start" in result,
        "its input is not that of the network's data configuration": schedule["mean"] != CHANNEL_MEAN,
        "it has no moving average": weights == "ema" and result["error_ema"] is None,
    }
    reasons = [reason for reason, holds in wrong.items() if holds]
    if reasons:
        raise ValueError(f"this run is not fit to ship: {', and '.join(reasons)}")


def schedule_text(result: dict[str, Any], weights: str) -> str:
    """How the weights came about, in a line."""
    schedule, hardware = result["schedule"], result["hardware"]
    threads = sorted({session["hardware"]["threads"] for session in result["sessions"]})
    where = hardware["gpu"] or f"{hardware['cpu']}, {' or '.join(map(str, threads))} used"
    named = ("crop", "prune", "smoothing", "cutout", "mixup", "cutmix")
    return "; ".join(
        [
            f"{schedule['epochs']} epochs of batch {schedule['batch_size']}",
            f"{schedule['opt']}, lr {schedule['lr']} {schedule['sched']}, weight decay {schedule['weight_decay']}",
            *([f"norms' lr times {schedule['fallback_lr_scale']}"] if schedule["fallback_lr_scale"] != 1 else []),
            "crop and flip",
            *(f"{name} {schedule[name]}" for name in named if schedule[name]),
            *([f"moving average of the weights ({schedule['ema_decay']})"] if weights == "ema" else []),
            f"{result['training_seconds'] / 3600:.1f} hours on {where}",
        ]
    )


def ship(run: Path, tag: str, weights: str, folder: Path, data_dir: Path) -> tuple[str, dict[str, Any]]:
    """Write a run's weights, rescaled by some images of ``data_dir``, to ``folder`` and enter them in its manifest.

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
    model_name, dataset = result["schedule"]["model"], result["schedule"]["dataset"]
    tensors = load_file(source)
    check_values(tensors)
    model = timm.create_model(model_name)
    try:
        model.load_state_dict(tensors)
    except RuntimeError as error:
        raise ValueError(f"{source} does not fit {model_name}: {' '.join(str(error).split())}") from error
    images, _ = load_cifar(data_dir, "train", dataset)
    rescale(model, normalize(images[:RESCALED_BY]))
    content = save(weights_of(model))
    if len(content) >= MAX_BYTES:
        raise ValueError(f"{source} has {len(content)} bytes; weights that ship have less than {MAX_BYTES}")
    error_percent = result["error_ema" if weights == "ema" else "error"]
    entry = {
        "sha256": hashlib.sha256(content).hexdigest(),
        "size": len(content),
        "accuracy": round(100 - error_percent, 2),
        "dataset": DATASETS[dataset],
        "record": f"benchmarks/results/cifar/{model_name}.{tag}",
        "commit": commits_of(result),
        "schedule": schedule_text(result, weights),
        "seed": result["seed"],
    }
    name = f"{model_name}.{tag}"
    target = folder / f"{name}.safetensors"
    save_atomically(target, lambda path: path.write_bytes(content))
    write_json(folder / "manifest.json", read_manifest(folder) | {target.name: entry})
    return name, entry


def block() -> str:
    """The weights that ship: their test error beside the paper's."""
    paper = {
        (cell.model, DATASETS[cell.dataset]): f"{cell.paper:.2f}%"
        for number in ("3", "6")
        for cell in TABLES[number].cells
        if not cell.model_kwargs
    }
    rows = []
    for file, entry in read_manifest().items():
        name = file.removesuffix(".safetensors")
        published = paper.get((name.partition(".")[0], entry["dataset"]), "-")
        link = f"[`{name}`](benchmarks/results/cifar/{name})"
        rows.append((link, entry["dataset"], f"{100 - entry['accuracy']:.2f}%", published))
    return markdown_table(("name", "data", "test error", "the paper's"), rows, text_columns=2)


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    parser = argparse.ArgumentParser(COMMAND, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, metavar="RUN_FOLDER", help="the --out of a finished run")
    parser.add_argument("--data-dir", type=Path, required=True, help="see benchmarks.cifar.data.load_cifar")
    parser.add_argument("--tag", default="cifar10", help="of the pretrained name, MODEL.TAG (default: cifar10)")
    parser.add_argument("--weights", choices=("ema", "model"), default="ema", help="default: ema")
    parser.add_argument("--folder", type=Path, default=WEIGHTS, help="default: timm_resattn/weights")
    args = parser.parse_args(argv)
    shipping = args.folder.resolve() == WEIGHTS
    try:
        if shipping and (args.run / "result.json").is_file():
            check_run(args.run, RECORDS)
        name, entry = ship(args.run, args.tag, args.weights, args.folder, args.data_dir)
        if shipping:
            record_run(args.run, RECORDS / name)
            write_block(COMMAND, block())
    except (OSError, ValueError) as error:
        parser.error(str(error))
    print(f"{name}: {entry['accuracy']}% top-1, {entry['size']:,} bytes. In default_cfgs, its entry is:")
    print(f'    "{name}": _cifar_cfg(file=shipped_file("{name}"), label_names=..., license="apache-2.0"),')
    return 0


if __name__ == "__main__":
    sys.exit(main())
