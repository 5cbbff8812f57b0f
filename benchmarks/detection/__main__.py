"""Digits on photographs: RetinaNet and Faster R-CNN on a pretrained network, and on the same one from scratch.

    python -m benchmarks.detection [--detectors D ...] [--starts S ...] [--steps N] [--threads N] [--seed S] [--out DIR]

Every image is composed anew: one to four of scikit-learn's digits, at random size, place and colour on a part of one of
scikit-image's photographs. Test images are made of digits and photographs that no training image has. The network is
`resattn56_cifar` with the weights that ship (CIFAR-10), or with random ones; budget and schedule are the same for both:
AdamW, warm-up, cosine to zero. COCO's mean average precision, by torchmetrics, is taken at a quarter, at half and at the
end of the schedule.

Writes record.json and predictions.png to benchmarks/results/detection/ and the pages' table; with ``--out`` elsewhere,
and no table.
"""

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import torch
from timm.optim import create_optimizer_v2
from timm.scheduler import create_scheduler_v2
from torch import nn
from tqdm import tqdm

from benchmarks.common.files import write_figure, write_json
from benchmarks.common.pages import write_block
from benchmarks.common.provenance import RESULTS, check_recordable, provenance
from benchmarks.common.tables import markdown_table
from benchmarks.detection import data
from benchmarks.detection.detectors import DETECTORS, MODEL, OUT_CHANNELS, build
from benchmarks.detection.draw import draw
from timm_resattn import retain_freed_memory

COMMAND = "python -m benchmarks.detection"
RECORDS = RESULTS / "detection"
STARTS = ("pretrained", "scratch")
LABELS = {"retinanet": "RetinaNet", "faster_rcnn": "Faster R-CNN", "pretrained": "CIFAR-10 weights", "scratch": "scratch"}
BATCH_SIZE = 8
LR = 1e-3
WEIGHT_DECAY = 0.05
MAX_GRAD_NORM = 5.0
WARMUP = 0.05  # of the steps
TEST_SEED = 1
SHARES = {"quarter": 0.25, "half": 0.5, "end": 1.0}
DRAWN = 6  # images
Detections = list[dict[str, torch.Tensor]]


def train(detector: nn.Module, steps: int, seed: int, name: str, test: tuple[data.Images, data.Targets]) -> dict[str, Any]:
    """Train in place; what it reaches at `SHARES` of the steps, and the seconds of training."""
    source, generator = data.load("train"), torch.Generator().manual_seed(seed)
    optimizer = create_optimizer_v2(detector, opt="adamw", lr=LR, weight_decay=WEIGHT_DECAY)
    scheduler, _ = create_scheduler_v2(
        optimizer, sched="cosine", num_epochs=steps, warmup_epochs=round(WARMUP * steps), warmup_lr=LR / 50,
        step_on_epochs=False, updates_per_epoch=1,
    )  # fmt: skip
    marks = {max(1, round(share * steps)): mark for mark, share in SHARES.items()}
    result: dict[str, Any] = {}
    seconds, start = 0.0, time.perf_counter()
    for step in tqdm(range(1, steps + 1), desc=name):
        detector.train()
        scheduler.step_update(step)
        images, targets = data.batch(source, BATCH_SIZE, generator)
        loss = sum(detector(images, targets).values())
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(detector.parameters(), MAX_GRAD_NORM)
        optimizer.step()
        if step in marks:
            seconds += time.perf_counter() - start
            result[marks[step]] = precision(detect(detector, test[0]), test[1])
            start = time.perf_counter()
    return {**result, "seconds": round(seconds, 1)}


@torch.inference_mode()
def detect(detector: nn.Module, images: data.Images) -> Detections:
    """Boxes, labels and scores for each image."""
    detector.eval()
    return [found for first in range(0, len(images), 20) for found in detector(images[first : first + 20])]


def precision(found: Detections, targets: data.Targets) -> dict[str, float]:
    """COCO's mean average precision at an overlap of 0.50, and over those from 0.50 to 0.95."""
    from torchmetrics.detection import MeanAveragePrecision

    metric = MeanAveragePrecision()
    metric.update(found, targets)
    result = metric.compute()
    return {"map50": round(result["map_50"].item(), 4), "map": round(result["map"].item(), 4)}


def block() -> str:
    """What each detector reaches from each start."""
    record = json.loads((RECORDS / "record.json").read_text())
    rows = []
    for detector, by_start in record["results"].items():
        for start, result in by_start.items():
            precisions = [f"{result[mark]['map50']:.3f}" for mark in SHARES]
            last, minutes = f"{result['end']['map']:.3f}", f"{result['seconds'] / 60:.1f}"
            rows.append((LABELS[detector], LABELS[start], *precisions, last, minutes))
    head = ("detector", "start", *(f"mAP50, {mark}" for mark in SHARES), "mAP, end", "minutes")
    hardware, versions, setting = record["hardware"], record["versions"], record["configuration"]
    told = (
        f"`{record['command']}`: {setting['steps']:,} steps of {setting['batch_size']} images, then "
        f"{setting['test_images']} test images; {hardware['cpu']}, {hardware['threads']} threads; "
        f"torch {versions['torch']}, torchvision {versions['torchvision']}."
    )
    picture = "![What the detectors found](benchmarks/results/detection/predictions.png)"
    return f"{markdown_table(head, rows, text_columns=2)}\n{told}\n\n{picture}\n"


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(COMMAND, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--detectors", nargs="+", choices=DETECTORS, default=DETECTORS)
    parser.add_argument("--starts", nargs="+", choices=STARTS, default=STARTS)
    parser.add_argument("--steps", type=int, default=1000, help=f"of {BATCH_SIZE} images")
    parser.add_argument("--test-images", type=int, default=300)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=RECORDS)
    return parser


def main(argv: list[str] | None = None) -> None:
    parser = build_parser()
    words = sys.argv[1:] if argv is None else argv
    args = parser.parse_args(words)
    try:
        for name in ("steps", "test_images", "threads"):
            if getattr(args, name) < 1:
                raise ValueError(f"--{name.replace('_', '-')} must be at least 1; got {getattr(args, name)}")
        if args.out.exists() and not args.out.is_dir():
            raise ValueError(f"{args.out} is no folder")
        check_recordable(args.out)
    except ValueError as error:
        parser.error(str(error))
    torch.set_num_threads(args.threads)
    retain_freed_memory()
    source = provenance(("torchmetrics", "pycocotools", "scikit-learn", "scikit-image"))
    test = data.batch(data.load("test"), args.test_images, torch.Generator().manual_seed(TEST_SEED))

    results: dict[str, dict[str, Any]] = {detector: {} for detector in args.detectors}
    drawn: dict[str, Detections] = {}
    for kind in args.detectors:
        for start in args.starts:
            torch.manual_seed(args.seed)
            detector = build(kind, start == "pretrained").to(memory_format=torch.channels_last)
            results[kind][start] = train(detector, args.steps, args.seed, f"{kind}, {start}", test)
            print(f"{kind}, {start}: {json.dumps(results[kind][start])}", flush=True)
            drawn.setdefault(LABELS[kind], detect(detector, test[0][:DRAWN]))
    configuration = {
        "model": MODEL, "out_channels": OUT_CHANNELS, "img_size": data.IMG_SIZE, "photographs": data.PHOTOGRAPHS,
        "batch_size": BATCH_SIZE, "steps": args.steps, "opt": "adamw", "lr": LR, "weight_decay": WEIGHT_DECAY,
        "clip_grad": MAX_GRAD_NORM, "sched": "cosine to 0", "warmup": WARMUP, "test_images": args.test_images,
        "digits": sum(len(target["labels"]) for target in test[1]),
    }  # fmt: skip
    record = {"command": " ".join([COMMAND, *words]), **source, "configuration": configuration, "seed": args.seed}
    write_json(args.out / "record.json", {**record, "results": results})
    write_figure(args.out / "predictions.png", draw(test[0][:DRAWN], test[1][:DRAWN], drawn))
    if args.out.resolve() == RECORDS:
        write_block(COMMAND, block())


if __name__ == "__main__":
    main()
