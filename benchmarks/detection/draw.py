"""What the detectors found on a few test images, beside what is there."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torchvision.ops import box_iou

from benchmarks.detection.data import Images, Targets

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SCORE = 0.5  # detections below it are not drawn


def draw(images: Images, targets: Targets, found: Mapping[str, list[dict[str, torch.Tensor]]]) -> "Figure":
    """A row for each detector, a column for each image: right boxes green, wrong ones red, missed digits dashed."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(1.4 * len(images), 1.45 * len(found)), layout="constrained")
    grid = figure.subplots(len(found), len(images), squeeze=False)
    for row, (name, detections) in zip(grid, found.items(), strict=True):
        row[0].set_ylabel(name)
        for axes, image, target, detection in zip(row, images, targets, detections, strict=True):
            axes.imshow(image.permute(1, 2, 0).clamp(0, 1).numpy(), interpolation="bilinear")
            axes.set(xticks=[], yticks=[])
            kept = detection["scores"] >= SCORE
            boxes, labels, scores = (detection[key][kept] for key in ("boxes", "labels", "scores"))
            same = labels[:, None] == target["labels"]
            right = (box_iou(boxes.float(), target["boxes"]) >= 0.5) & same
            for box, label, score, good in zip(boxes, labels, scores, right.any(1), strict=True):
                _frame(axes, box, "lime" if good else "red", "-", f"{label - 1} {score:.0%}")
            for box, label in zip(target["boxes"][~right.any(0)], target["labels"][~right.any(0)], strict=True):
                _frame(axes, box, "yellow", "--", f"missed {label - 1}")
    return figure


def _frame(axes, box: torch.Tensor, color: str, line: str, text: str) -> None:
    left, top, right, bottom = box.tolist()
    axes.plot([left, right, right, left, left], [top, top, bottom, bottom, top], line, color=color, linewidth=1)
    axes.text(left, top - 1, text, color=color, fontsize=6, clip_on=True, backgroundcolor=(0, 0, 0, 0.5)).set_bbox(
        dict(facecolor="black", alpha=0.5, pad=0.5, linewidth=0)
    )
