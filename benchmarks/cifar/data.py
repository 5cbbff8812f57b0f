"""CIFAR on the device: the whole set as uint8 tensors, augmented there in batches."""

from functools import cache
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torchvision import datasets

MEAN = (0.4914, 0.4822, 0.4465)
STD = (0.2470, 0.2435, 0.2616)
CLASSES = {"cifar10": 10, "cifar100": 100}
TORCHVISION = {"cifar10": ("CIFAR10", "cifar-10-batches-py"), "cifar100": ("CIFAR100", "cifar-100-python")}


def load_cifar(data_dir: Path, split: str, dataset: str = "cifar10") -> tuple[torch.Tensor, torch.Tensor]:
    """Images ``(N, 3, 32, 32)`` uint8 and labels ``(N,)`` int64 of one split.

    Args:
        data_dir: Holds ``{split}.npz`` (``images`` (N, 32, 32, 3) uint8, ``labels`` (N,)), or an image folder
            ``{split}/<class>/*.png``, as torchvision's ``ImageFolder`` reads it but with the images of all classes in
            the order of their file names, or torchvision's folder of the set (``cifar-10-batches-py``,
            ``cifar-100-python``).
        split: ``"train"`` or ``"test"``.
        dataset: ``"cifar10"`` or ``"cifar100"``.

    Raises:
        FileNotFoundError: None of them is there.
        ValueError: What is there can't be read, or is not of that form, or a label is no class of the set.
    """
    if dataset not in CLASSES:
        raise ValueError(f"dataset must be one of {', '.join(CLASSES)}; got {dataset!r}")
    archive, folder = data_dir / f"{split}.npz", data_dir / split
    class_name, packed = TORCHVISION[dataset]
    if archive.is_file():
        images, labels = _load_archive(archive)
    elif folder.is_dir():
        images, labels = _load_folder(folder, CLASSES[dataset])
    elif (data_dir / packed).is_dir():
        images, labels = _load_torchvision(data_dir, split, class_name)
    else:
        raise FileNotFoundError(
            f"{data_dir} holds neither {split}.npz nor an image folder {split}/<class>/*.png nor torchvision's {packed}"
        )
    if images.shape[1:] != (32, 32, 3) or images.dtype != np.uint8 or labels.shape != images.shape[:1]:
        raise ValueError(
            f"{data_dir}: {split} must have images (N, 32, 32, 3) uint8 and labels (N,); "
            f"got {images.shape} {images.dtype} and {labels.shape}"
        )
    wrong = np.flatnonzero((labels < 0) | (labels >= CLASSES[dataset]) | (labels != labels.astype(np.int64)))
    if len(wrong):
        raise ValueError(
            f"{data_dir}: labels of {dataset} must be from 0 to {CLASSES[dataset] - 1}; "
            f"image {wrong[0]} of {split} has {labels[wrong[0]]}"
        )
    return torch.from_numpy(images).movedim(-1, 1).contiguous(), torch.from_numpy(labels).long()


def _load_archive(archive: Path) -> tuple[np.ndarray, np.ndarray]:
    try:
        with np.load(archive, allow_pickle=False) as arrays:
            return arrays["images"], arrays["labels"]
    except (OSError, ValueError, EOFError) as error:
        raise ValueError(f"{archive} can't be read as arrays: {error}") from error
    except KeyError as error:
        raise ValueError(f"{archive} must hold the arrays images and labels") from error


def _load_folder(folder: Path, num_classes: int) -> tuple[np.ndarray, np.ndarray]:
    try:
        found = datasets.ImageFolder(folder)
    except FileNotFoundError as error:
        raise ValueError(f"{folder}: {error}") from error
    if len(found.classes) != num_classes:
        raise ValueError(f"{folder} must have {num_classes} folders, one a class; it has {len(found.classes)}")
    samples = sorted(found.samples, key=lambda sample: (Path(sample[0]).name, sample[1]))
    images = np.empty((len(samples), 32, 32, 3), np.uint8)
    for i, (file, _) in enumerate(samples):
        try:
            pixels = np.asarray(found.loader(file))
        except OSError as error:
            raise ValueError(f"{file} can't be read as an image: {error}") from error
        if pixels.shape != (32, 32, 3):
            raise ValueError(f"{file} must be an image of 32x32 pixels; it has {pixels.shape[1]}x{pixels.shape[0]}")
        images[i] = pixels
    return images, np.array([label for _, label in samples])


def _load_torchvision(data_dir: Path, split: str, class_name: str) -> tuple[np.ndarray, np.ndarray]:
    """By torchvision, which compares each file with its known MD5 before it unpickles it."""
    try:
        loaded = getattr(datasets, class_name)(str(data_dir), train=split == "train", download=False)
    except RuntimeError as error:
        raise ValueError(f"{data_dir}: {str(error).splitlines()[0]}") from error
    return loaded.data, np.array(loaded.targets)


def split_validation(count: int, val_images: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Indices of the images to train on and of those to validate on: the end of a permutation fixed by ``seed``.

    Raises:
        ValueError: ``val_images`` is negative or leaves nothing to train on.
    """
    if not 0 <= val_images < count:
        raise ValueError(f"val_images must be from 0 to {count - 1}, fewer than there are images; got {val_images}")
    order = torch.from_numpy(np.random.default_rng(seed).permutation(count))
    kept = order[: count - val_images]
    return (kept.sort().values if val_images == 0 else kept), order[count - val_images :]


def add_label_noise(labels: torch.Tensor, noise: float, num_classes: int, seed: int) -> torch.Tensor:
    """The paper's label noise: each label stays with probability ``1 - noise``, else is one of the others, uniformly.

    Shape: ``(N,) -> (N,)``, drawn once and for all by ``seed``.

    Raises:
        ValueError: ``noise`` is not from 0 to 1.
    """
    if not 0 <= noise <= 1:
        raise ValueError(f"label_noise must be from 0 to 1; got {noise}")
    rng = np.random.default_rng(seed)
    changed = torch.from_numpy(rng.random(len(labels)) < noise)
    shift = torch.from_numpy(rng.integers(1, num_classes, len(labels)))
    return torch.where(changed, (labels + shift) % num_classes, labels)


def random_crop_flip(images: torch.Tensor, pad: int = 4, size: int = 0) -> torch.Tensor:
    """Zero-pad by ``pad``, crop each image at its own random place, mirror each with probability 1/2.

    Shape: ``(B, C, H, W) -> (B, C, size, size)``, or ``(B, C, H, W)`` with a ``size`` of 0.
    """
    batch, _, height, width = images.shape
    padded = F.pad(images, [pad] * 4)
    device = images.device

    def places(length: int) -> torch.Tensor:
        side = size or length
        return torch.randint(length + 2 * pad - side + 1, (batch, 1), device=device) + torch.arange(side, device=device)

    rows, cols = places(height), places(width)
    flip = torch.rand(batch, 1, device=device) < 0.5
    cols = torch.where(flip, cols.flip(1), cols)
    index = torch.arange(batch, device=device)
    return padded[index[:, None, None], :, rows[:, :, None], cols[:, None, :]].movedim(-1, 1)


def cutout(images: torch.Tensor, size: int) -> torch.Tensor:
    """Blank a square of side ``size`` in each image, its centre anywhere in that image (DeVries & Taylor 2017).

    Shape: ``(B, C, H, W) -> (B, C, H, W)``. What lies outside the image is lost, as in the authors' code.
    """
    batch, _, height, width = images.shape

    def outside(length: int) -> torch.Tensor:
        start = torch.randint(length, (batch, 1), device=images.device) - size // 2
        places = torch.arange(length, device=images.device)
        return (places < start) | (places >= start + size)

    return images * (outside(height)[:, :, None] | outside(width)[:, None, :])[:, None]


def left_out(count: int, share: float) -> int:
    """How many of so many images `prune` leaves out: at most half of them."""
    return min(round(share * count), count // 2)


def prune(losses: torch.Tensor, share: float, rng: np.random.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Choose the images of an epoch: the easiest ``2 * share`` of them are thinned by half, which then counts twice.

    "InfoBatch: Lossless Training Speed Up by Unbiased Dynamic Data Pruning", https://arxiv.org/abs/2303.04947. The
    expectation of the weighted sum over the chosen images is that of the sum over all. **Deviation:** the easy ones
    are a fixed share, not those below the mean loss, so that every epoch has the same number of updates; and the
    trainer takes the loss of an image that was not drawn yet for 0, so that some are drawn late: with 50,000 images
    and a share of 0.35 about 500 never in six epochs, 70 in nine.

    Args:
        losses: Last known loss of each image, ``(N,)``.
        share: Share of the images to leave out, from 0 to 0.5.
        rng: Draws which, and the order.

    Returns:
        Indices of the chosen images in random order and their weights, 1 or 2, both of `left_out` fewer than N.
    """
    count = len(losses)
    pruned = left_out(count, share)
    order = torch.from_numpy(rng.permutation(count))
    easy = order[losses.cpu()[order].argsort(stable=True)[: 2 * pruned]]
    easy = easy[torch.from_numpy(rng.permutation(len(easy)))]
    weights = torch.ones(count)
    weights[easy[:pruned]], weights[easy[pruned:]] = 0, 2
    kept = order[weights[order] > 0]
    return kept, weights[kept]


@cache
def _channel_constants(device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and deviation on the device, ``(1, 3, 1, 1)`` in units of 0 to 255, copied there once."""
    mean, std = (torch.tensor(values, device=device).view(1, 3, 1, 1) * 255 for values in (MEAN, STD))
    return mean, std


def normalize(images: torch.Tensor) -> torch.Tensor:
    """From uint8 to the networks' input: ``(x / 255 - mean) / std`` per channel, channels_last."""
    mean, std = _channel_constants(images.device)
    return ((images.float() - mean) / std).contiguous(memory_format=torch.channels_last)


def pixel_mean(images: torch.Tensor) -> torch.Tensor:
    """Mean image of a training set, ``(N, 3, 32, 32)`` uint8 -> ``(1, 3, 32, 32)``, in units of 0 to 255."""
    return images.sum(0, keepdim=True, dtype=torch.int64).float() / len(images)


def subtract_pixel_mean(images: torch.Tensor, mean: torch.Tensor) -> torch.Tensor:
    """From uint8 to the paper's input: ``(x - mean) / 255`` per pixel, channels_last."""
    return ((images.float() - mean) / 255).contiguous(memory_format=torch.channels_last)
