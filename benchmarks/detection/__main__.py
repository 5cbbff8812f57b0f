"""Digits on photographs: RetinaNet and Faster R-CNN on a network that was trained to classify, and from scratch.

    python -m benchmarks.detection [--steps N] [--classifier-steps N] [--jobs J] [--seed S] [--out DIR]

Every image is composed anew: one to three of scikit-learn's digits, at random size, place and colour on a part of one
of scikit-image's photographs. Test images are made of digits and photographs that no training image has. The network,
a narrow `resattn56`, is first trained to name the digit of images of one; detectors start from its weights, or from
random ones, with the same steps and schedule: Muon, warm-up, cosine to zero. COCO's mean average precision, by
torchmetrics, is taken at a quarter, at half and at the end of it. Detectors train on one thread each, ``--jobs`` at a
time; their times are those of the process on the processor, which other processes disturb little.

Writes record.json and predictions.png to benchmarks/results/detection/ and the pages' table; with ``--out`` elsewhere,
and no table.
"""

import argparse
import json
import sys
import tempfile
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch

from benchmarks.common.files import write_figure, write_json
from benchmarks.common.packages import MissingPackageError, require
from benchmarks.common.pages import write_block
from benchmarks.common.provenance import RESULTS, check_recordable, provenance
from benchmarks.common.tables import markdown_table
from benchmarks.detection import data, train
from benchmarks.detection.detectors import DETECTORS, MODEL, MODEL_ARGS, OUT_CHANNELS
from benchmarks.detection.draw import draw
from timm_resattn import retain_freed_memory

COMMAND = "python -m benchmarks.detection"
RECORDS = RESULTS / "detection"
STARTS = ("pretrained", "scratch")
LABELS = {"retinanet": "RetinaNet", "faster_rcnn": "Faster R-CNN", "pretrained": "classifier", "scratch": "scratch"}
DRAWN = 6  # images


def block() -> str:
    """What each detector reaches from each start."""
    record = json.loads((RECORDS / "record.json").read_text())
    rows = []
    for detector, by_start in record["results"].items():
        for start, result in by_start.items():
            precisions = [f"{result[mark]['map50']:.3f}" for mark in train.SHARES]
            last, minutes = f"{result['end']['map']:.3f}", f"{result['seconds'] / 60:.1f}"
            rows.append((LABELS[detector], LABELS[start], *precisions, last, minutes))
    head = ("detector", "start", *(f"mAP50, {mark}" for mark in train.SHARES), "mAP, end", "processor minutes")
    hardware, versions, setting = record["hardware"], record["versions"], record["configuration"]
    told = (
        f"`{record['command']}`: {setting['steps']:,} steps of {setting['batch_size']} images, then "
        f"{setting['test_images']} test images with {setting['test_digits']} digits. The classifier took "
        f"{record['classifier']['seconds'] / 60:.1f} minutes and names {record['classifier']['accuracy']:.1%} of test "
        f"digits. One thread of {hardware['cpu']}; torch {versions['torch']}, "
        f"torchvision {versions['torchvision']}."
    )
    picture = "![What the detectors found](benchmarks/results/detection/predictions.png)"
    return f"{markdown_table(head, rows, text_columns=2)}\n{told}\n\n{picture}\n"


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(COMMAND, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=1400, help=f"of {train.BATCH_SIZE} images")
    parser.add_argument("--classifier-steps", type=int, default=1500)
    parser.add_argument("--test-images", type=int, default=200)
    parser.add_argument("--jobs", type=int, default=2, help="detectors that train at a time")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=RECORDS)
    return parser


def main(argv: list[str] | None = None) -> None:
    parser = build_parser()
    words = sys.argv[1:] if argv is None else argv
    args = parser.parse_args(words)
    try:
        for name in ("steps", "classifier_steps", "test_images", "jobs"):
            if getattr(args, name) < 1:
                raise ValueError(f"--{name.replace('_', '-')} must be at least 1; got {getattr(args, name)}")
        if args.out.exists() and not args.out.is_dir():
            raise ValueError(f"{args.out} is no folder")
        check_recordable(args.out)
        for package in ("matplotlib", "pycocotools", "skimage", "sklearn", "torchmetrics", "tqdm"):
            require(package)
    except (ValueError, MissingPackageError) as error:
        parser.error(str(error))
    torch.set_num_threads(1)
    retain_freed_memory()
    source = provenance(("torchmetrics", "pycocotools", "scikit-learn", "scikit-image"))
    test = data.load_test(args.test_images)

    results: dict[str, dict[str, Any]] = {kind: {} for kind in DETECTORS}
    drawn: dict[str, train.Detections] = {}
    with tempfile.TemporaryDirectory() as folder:
        weights = Path(folder) / "classifier.safetensors"
        classified = train.train_classifier(args.classifier_steps, args.seed, args.test_images, weights)
        with ProcessPoolExecutor(args.jobs, get_context("spawn")) as pool:
            cells = [(kind, start) for kind in DETECTORS for start in STARTS]
            jobs = [
                pool.submit(train.run, *cell, args.steps, args.seed, weights, args.test_images, DRAWN) for cell in cells
            ]
            for (kind, start), job in zip(cells, jobs, strict=True):
                done = job.result()
                results[kind][start] = done["result"]
                found = [{name: torch.from_numpy(value) for name, value in f.items()} for f in done["found"]]
                drawn.setdefault(LABELS[kind], found)
    configuration = {
        "model": MODEL, "model_args": MODEL_ARGS, "out_channels": OUT_CHANNELS, "img_size": data.IMG_SIZE,
        "photographs": data.PHOTOGRAPHS, "batch_size": train.BATCH_SIZE, "steps": args.steps,
        "classifier_steps": args.classifier_steps, **train.OPTIMIZER, "lr": train.LR, "clip_grad": train.MAX_GRAD_NORM,
        "sched": "cosine to 0", "warmup": train.WARMUP,
        "test_images": args.test_images, "test_digits": sum(len(target["labels"]) for target in test[1]),
    }  # fmt: skip
    record = {"command": " ".join([COMMAND, *words]), **source, "configuration": configuration, "seed": args.seed}
    write_json(args.out / "record.json", {**record, "classifier": classified, "results": results})
    write_figure(args.out / "predictions.png", draw(test[0][:DRAWN], test[1][:DRAWN], drawn))
    if args.out.resolve() == RECORDS:
        write_block(COMMAND, block())


if __name__ == "__main__":
    main()
