"""CIFAR on the device: the whole set as uint8 tensors, augmented there in batches."""

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

MEAN = (0.4914, 0.4822, 0.4465)
STD = (0.2470, 0.2435, 0.2616)


def load_cifar(data_dir: Path, split: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Images ``(N, 3, 32, 32)`` uint8 and labels ``(N,)`` int64 of one split.

    Args:
        data_dir: Holds ``{split}.npz`` (``images`` (N, 32, 32, 3) uint8, ``labels`` (N,)) or an image folder
            ``{split}/<class>/*.png``, in which case images come in the order of their file names.
        split: ``"train"`` or ``"test"``.

    Raises:
        FileNotFoundError: Neither is there.
        ValueError: The arrays are not of that form.
    """
    archive, folder = data_dir / f"{split}.npz", data_dir / split
    if archive.is_file():
        with np.load(archive, allow_pickle=False) as arrays:
            images, labels = arrays["images"], arrays["labels"]
    elif folder.is_dir():
        classes = sorted(path.name for path in folder.iterdir() if path.is_dir())
        files = sorted(folder.glob("*/*.png"), key=lambda path: path.name)
        images = np.stack([np.asarray(Image.open(file).convert("RGB")) for file in files])
        labels = np.array([classes.index(file.parent.name) for file in files])
    else:
        raise FileNotFoundError(f"{data_dir} holds neither {split}.npz nor an image folder {split}/<class>/*.png")
    if images.shape[1:] != (32, 32, 3) or images.dtype != np.uint8 or labels.shape != images.shape[:1]:
        raise ValueError(
            f"{data_dir}: {split} must have images (N, 32, 32, 3) uint8 and labels (N,); "
            f"got {images.shape} {images.dtype} and {labels.shape}"
        )
    return torch.from_numpy(images).movedim(-1, 1).contiguous(), torch.from_numpy(labels).long()


def random_crop_flip(images: torch.Tensor, pad: int = 4) -> torch.Tensor:
    """Zero-pad by ``pad``, crop each image at its own random place, mirror each with probability 1/2.

    Shape: ``(B, C, H, W) -> (B, C, H, W)``.
    """
    batch, _, height, width = images.shape
    padded = F.pad(images, [pad] * 4)
    device = images.device
    rows = torch.randint(2 * pad + 1, (batch, 1), device=device) + torch.arange(height, device=device)
    cols = torch.randint(2 * pad + 1, (batch, 1), device=device) + torch.arange(width, device=device)
    flip = torch.rand(batch, 1, device=device) < 0.5
    cols = torch.where(flip, cols.flip(1), cols)
    index = torch.arange(batch, device=device)
    return padded[index[:, None, None], :, rows[:, :, None], cols[:, None, :]].movedim(-1, 1)


def normalize(images: torch.Tensor) -> torch.Tensor:
    """From uint8 to the networks' input: ``(x / 255 - mean) / std`` per channel, channels_last."""
    mean, std = (torch.tensor(v, device=images.device).view(1, 3, 1, 1) * 255 for v in (MEAN, STD))
    return ((images.float() - mean) / std).contiguous(memory_format=torch.channels_last)
