"""Real images for a detector, made of what libraries ship: scikit-learn's digits on scikit-image's photographs.

A third of each class's digits is held out, as in `timm_resattn.demo`, and so are photographs: test images have neither
in common with training images.
"""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from timm_resattn.demo import load_digits

IMG_SIZE = 64
DIGIT_SIZES = (20, 40)  # sides, in pixels, of the square that a digit was written in
MOST_DIGITS = 3
TEST_SEED = 1
INK = 0.2  # a digit's box holds what is inked by more than this
PHOTOGRAPHS = {
    "train": (
        "astronaut", "brick", "cell", "clock", "coffee", "coins", "grass", "hubble_deep_field", "immunohistochemistry",
        "moon", "retina", "rocket",
    ),
    "test": ("chelsea", "camera", "gravel"),
}  # fmt: skip
Images = list[torch.Tensor]
Targets = list[dict[str, torch.Tensor]]


@dataclass
class Source:
    """Digits ``(N, 1, 24, 24)``, their classes and photographs ``(3, H, W)``, all in [0, 1]."""

    digits: torch.Tensor
    classes: torch.Tensor
    photographs: list[torch.Tensor]


def load(split: str) -> Source:
    """What the images of ``"train"`` or ``"test"`` are made of."""
    from skimage import data

    train_digits, train_classes, test_digits, test_classes = load_digits()
    digits, classes = (train_digits, train_classes) if split == "train" else (test_digits, test_classes)
    photographs = []
    for name in PHOTOGRAPHS[split]:
        pixels = np.asarray(getattr(data, name)())
        pixels = pixels[..., :3] if pixels.ndim == 3 else np.stack([pixels] * 3, axis=-1)
        photographs.append(torch.from_numpy(pixels.copy()).permute(2, 0, 1).float() / 255)
    return Source(digits[..., 4:28, 4:28], classes, photographs)


def batch(
    source: Source, size: int, generator: torch.Generator, most_digits: int = MOST_DIGITS
) -> tuple[Images, Targets]:
    """Images ``(3, IMG_SIZE, IMG_SIZE)`` and, for each, boxes ``(N, 4)`` and labels ``(N,)``: the digit plus one."""
    images, targets = zip(*(_image(source, generator, most_digits) for _ in range(size)), strict=True)
    return list(images), list(targets)


def load_test(size: int) -> tuple[Images, Targets]:
    """So many test images, always the same."""
    return batch(load("test"), size, torch.Generator().manual_seed(TEST_SEED))


def _integer(low: int, high: int, generator: torch.Generator) -> int:
    """From ``low`` up to ``high``."""
    return int(torch.randint(low, high + 1, (), generator=generator))


def _image(
    source: Source, generator: torch.Generator, most_digits: int
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    image = _background(source.photographs[_integer(0, len(source.photographs) - 1, generator)], generator)
    boxes: list[list[int]] = []
    labels = []
    for _ in range(_integer(1, most_digits, generator)):
        index = _integer(0, len(source.digits) - 1, generator)
        ink = _ink(source.digits[index : index + 1], generator)
        height, width = ink.shape
        top, left = _integer(0, IMG_SIZE - height, generator), _integer(0, IMG_SIZE - width, generator)
        box = [left, top, left + width, top + height]
        if any(box[0] < b[2] and b[0] < box[2] and box[1] < b[3] and b[1] < box[3] for b in boxes):
            continue  # digits do not overlap: a crowded image has fewer
        patch = image[:, top : top + height, left : left + width]
        colour = 0.2 * torch.rand(3, 1, 1, generator=generator)
        if patch.mean() < 0.5:
            colour = 1 - colour
        patch.lerp_(colour.expand_as(patch), ink.expand_as(patch))
        boxes.append(box)
        labels.append(int(source.classes[index]) + 1)
    return image, {"boxes": torch.tensor(boxes).float(), "labels": torch.tensor(labels)}


def _background(photograph: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """A random square of the photograph, up to three times as large as the image, mirrored or not."""
    side = _integer(IMG_SIZE, min(3 * IMG_SIZE, *photograph.shape[1:]), generator)
    top, left = (_integer(0, extent - side, generator) for extent in photograph.shape[1:])
    square = photograph[None, :, top : top + side, left : left + side]
    image = F.interpolate(square, size=(IMG_SIZE, IMG_SIZE), mode="bilinear", antialias=True)[0]
    return image.flip(-1) if _integer(0, 1, generator) else image


def _ink(digit: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """The digit at a random size and width, cropped to what is inked: ``(H, W)`` in [0, 1]."""
    height = _integer(*DIGIT_SIZES, generator)
    width = round(height * (0.8 + 0.4 * torch.rand((), generator=generator).item()))
    ink = F.interpolate(digit, size=(height, min(width, IMG_SIZE)), mode="bilinear", antialias=True)[0, 0]
    rows, columns = (ink > INK).any(1).nonzero(), (ink > INK).any(0).nonzero()
    return ink[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]


def to_device(images: Images, targets: Targets, model: nn.Module) -> tuple[Images, Targets]:
    """The same where the model is."""
    device = next(model.parameters()).device
    moved = [{name: value.to(device) for name, value in target.items()} for target in targets]
    return [image.to(device) for image in images], moved
