"""Training, of the classifier and of detectors, and what a detector reaches."""

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from timm.optim import create_optimizer_v2
from timm.scheduler import create_scheduler_v2
from torch import nn
from tqdm import tqdm

from benchmarks.detection import data
from benchmarks.detection.detectors import build, classifier
from timm_resattn import retain_freed_memory

BATCH_SIZE = 16
# Muon, and AdamW for the norms
OPTIMIZER: dict[str, Any] = dict(opt="nmuon", momentum=0.9, weight_decay=0.02, fallback_lr_scale=0.1)
LR = {"classifier": 0.02, "retinanet": 0.02, "faster_rcnn": 0.005}  # not all layers of the last one are normalised
MAX_GRAD_NORM = 5.0
WARMUP = 0.05  # of the steps
SHARES = {"quarter": 0.25, "half": 0.5, "end": 1.0}
Detections = list[dict[str, torch.Tensor]]


def descend(model: nn.Module, steps: int, lr: float, name: str, loss_of: Callable[[], torch.Tensor]) -> Iterator[int]:
    """Train in place; gives the number of steps done after each."""
    optimizer = create_optimizer_v2(model, lr=lr, **OPTIMIZER)
    scheduler, _ = create_scheduler_v2(
        optimizer, sched="cosine", num_epochs=steps, step_on_epochs=False, updates_per_epoch=1,
        warmup_epochs=round(WARMUP * steps), warmup_lr=lr / 50,
    )  # fmt: skip
    for step in tqdm(range(1, steps + 1), desc=name):
        model.train()
        scheduler.step_update(step)
        loss = loss_of()
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), MAX_GRAD_NORM)
        optimizer.step()
        yield step


def train_classifier(steps: int, seed: int, images: int, path: Path) -> dict[str, float]:
    """Train to name the digit of images of one, save the weights; accuracy on so many test images, and seconds."""
    torch.manual_seed(seed)
    model = classifier().to(memory_format=torch.channels_last)
    source, generator = data.load("train"), torch.Generator().manual_seed(seed)

    def batch(source: data.Source, size: int, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        found, targets = data.batch(source, size, generator, most_digits=1)
        pixels = (torch.stack(found) - mean) / std
        return pixels.contiguous(memory_format=torch.channels_last), torch.cat([t["labels"] for t in targets]) - 1

    mean, std = (torch.tensor(model.pretrained_cfg[key])[:, None, None] for key in ("mean", "std"))

    def loss() -> torch.Tensor:
        pixels, labels = batch(source, BATCH_SIZE, generator)
        return F.cross_entropy(model(pixels), labels)

    start = time.process_time()
    for _ in descend(model, steps, LR["classifier"], "classifier", loss):
        pass
    seconds = time.process_time() - start
    pixels, labels = batch(data.load("test"), images, torch.Generator().manual_seed(seed))
    with torch.inference_mode():
        accuracy = (model.eval()(pixels).argmax(1) == labels).double().mean().item()
    save_file({name: value.contiguous() for name, value in model.state_dict().items()}, path)
    return {"accuracy": round(accuracy, 4), "seconds": round(seconds, 1)}


def train_detector(
    detector: nn.Module, steps: int, lr: float, seed: int, name: str, test: tuple[data.Images, data.Targets]
) -> dict[str, Any]:
    """Train in place; precision at `SHARES` of the steps, and the seconds of training."""
    source, generator = data.load("train"), torch.Generator().manual_seed(seed)
    marks = {max(1, round(share * steps)): mark for mark, share in SHARES.items()}
    result: dict[str, Any] = {}

    def loss() -> torch.Tensor:
        return sum(detector(*data.batch(source, BATCH_SIZE, generator)).values())

    seconds, start = 0.0, time.process_time()
    for step in descend(detector, steps, lr, name, loss):
        if step in marks:
            seconds += time.process_time() - start
            result[marks[step]] = precision(detect(detector, test[0]), test[1])
            start = time.process_time()
    return {**result, "seconds": round(seconds, 1)}


def run(kind: str, start: str, steps: int, seed: int, weights: Path, test_images: int, drawn: int) -> dict[str, Any]:
    """Train one detector, in a process of its own: what it reaches, and what it finds on the first test images."""
    torch.set_num_threads(1)
    retain_freed_memory()
    torch.manual_seed(seed)
    test = data.load_test(test_images)
    detector = build(kind, str(weights) if start == "pretrained" else None).to(memory_format=torch.channels_last)
    result = train_detector(detector, steps, LR[kind], seed, f"{kind}, {start}", test)
    print(f"{kind}, {start}: {json.dumps(result)}", flush=True)
    # arrays: tensors would go through shared memory, which ends with the process
    found = [{name: value.numpy() for name, value in f.items()} for f in detect(detector, test[0][:drawn])]
    return {"result": result, "found": found}


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
