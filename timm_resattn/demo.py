"""The demonstration: train ``resattn56_cifar`` on handwritten digits in about a minute and draw its masks.

The digits are scikit-learn's own 1,797 real images of 8x8 pixels, enlarged to 24x24 in a frame of 32x32;
nothing is downloaded.
"""

import os
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, List, Optional, Tuple, Union

import timm
import torch
import torch.nn.functional as F
from timm.optim import create_optimizer_v2
from timm.scheduler import create_scheduler_v2
from timm.utils import random_seed
from torch import nn

from . import resattn  # noqa: F401  registers the network
from .visualize import check_picture_path, plot_masks, record_attention, save_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["DemoResult", "run_demo"]

BATCH_SIZE = 32
MAX_SHIFT = 2  # pixels; the only augmentation, for a mirrored digit is another symbol


@dataclass(frozen=True)
class DemoResult:
    """What `run_demo` measured: held-out accuracy, mean training loss of each epoch, seconds in all."""

    accuracy: float
    num_held_out: int
    losses: List[float]
    seconds: float


def run_demo(
    epochs: int = 10,
    seed: int = 42,
    path: Union[str, "os.PathLike[str]"] = "resattn_demo.png",
    device: Optional[Union[str, torch.device]] = None,
) -> DemoResult:
    """Train on two thirds of the digits, test on the last third, save a picture of masks and predictions.

    Args:
        epochs: Epochs of training, 37 steps each.
        seed: Seed of weights, order and augmentation; the split is always the same.
        path: The picture.
        device: Where to train; by default a GPU if there is one.

    Raises:
        ValueError: ``epochs`` is less than 1, or ``path`` can't be used.
        ImportError: A package of the extra ``demo`` is missing.
    """
    start = time.perf_counter()
    if epochs < 1:
        raise ValueError(f"epochs must be at least 1; got {epochs}.")
    check_picture_path(path)
    if device is None:
        device = "cuda" if torch.cuda.is_available() else "cpu"
    device = torch.device(device)

    images, labels, held_out_images, held_out_labels = load_digits()
    random_seed(seed)
    model = timm.create_model("resattn56_cifar", in_chans=1, device=device).to(memory_format=torch.channels_last)
    losses = train(model, images, labels, epochs)
    predictions = predict(model, held_out_images)
    accuracy = (predictions == held_out_labels).double().mean().item()
    save_figure(draw(model, held_out_images, held_out_labels, predictions), path)
    return DemoResult(accuracy, len(held_out_labels), losses, time.perf_counter() - start)


def load_digits() -> Tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Training images, training labels, held-out images, held-out labels.

    A third of each class is held out, always the same.

    Shape: images ``(B, 1, 32, 32)`` in [0, 1], labels ``(B,)``.
    """
    from sklearn import datasets, model_selection

    digits = datasets.load_digits()
    images = torch.from_numpy(digits.images).float().div(16).unsqueeze(1)
    images = F.pad(F.interpolate(images, scale_factor=3, mode="bilinear"), [4] * 4)
    labels = torch.from_numpy(digits.target)
    train, held_out = model_selection.train_test_split(
        torch.arange(len(labels)), test_size=1 / 3, stratify=digits.target, random_state=0
    )
    return images[train], labels[train], images[held_out], labels[held_out]


def train(model: nn.Module, images: torch.Tensor, labels: torch.Tensor, epochs: int) -> List[float]:
    """Train a classifier and return the mean loss of each epoch.

    Shape: images ``(B, C, H, W)``, labels ``(B,)``.
    """
    from tqdm import tqdm

    steps = len(labels) // BATCH_SIZE
    optimizer = create_optimizer_v2(model, opt="adamw", lr=3e-3, weight_decay=0.05)
    scheduler, _ = create_scheduler_v2(
        optimizer,
        sched="cosine",
        num_epochs=epochs,
        warmup_epochs=1,
        warmup_lr=1e-4,
        step_on_epochs=False,
        updates_per_epoch=steps,
    )
    device = next(model.parameters()).device
    epoch_losses = []
    model.train()
    with tqdm(total=epochs * steps, desc="training", unit="step") as bar:
        for epoch in range(epochs):
            loss_sum, right = 0.0, 0
            order = torch.randperm(len(labels))[: steps * BATCH_SIZE]
            for step, batch in enumerate(order.split(BATCH_SIZE), start=1):
                target = labels[batch].to(device)
                with _autocast(device):
                    logits = model(_to_input(_random_shift(images[batch]), device))
                    loss = F.cross_entropy(logits, target)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                scheduler.step_update(epoch * steps + step)
                loss_sum += loss.item()
                right += int((logits.argmax(1) == target).sum())
                bar.update()
                bar.set_postfix(loss=f"{loss_sum / step:.3f}", accuracy=f"{right / step / BATCH_SIZE:.1%}")
            epoch_losses.append(loss_sum / steps)
    return epoch_losses


@torch.inference_mode()
def predict(model: nn.Module, images: torch.Tensor) -> torch.Tensor:
    """Predicted classes, on the CPU: ``(B, C, H, W) -> (B,)``."""
    device = next(model.parameters()).device
    model.eval()
    with _autocast(device):
        logits = [model(_to_input(batch, device)) for batch in images.split(100)]
    return torch.cat(logits).argmax(1).cpu()


def draw(model: nn.Module, images: torch.Tensor, labels: torch.Tensor, predictions: torch.Tensor) -> "Figure":
    """A right example of each class and up to three wrong ones, in columns, and below them their masks."""
    right = predictions == labels
    examples = [(right & (labels == c)).nonzero().flatten()[:1] for c in range(10)]
    chosen = torch.cat([*examples, (~right).nonzero().flatten()[:3]])
    device = next(model.parameters()).device
    record = record_attention(model.eval(), _to_input(images[chosen], device), predictions[chosen])

    titles = [f"{predictions[i]}" if right[i] else f"{predictions[i]}, but is {labels[i]}" for i in chosen]
    caption = (
        "$H = (1 + M) \\cdot T$: a mask $M$ weights the features $T$ of its trunk. Bright: where the mask raises the "
        "digit read (mask x gradient, positive part, summed over the channels)."
    )
    figure = plot_masks(images[chosen], record, "effect", titles, caption, alpha=1.0, images_along="columns")
    figure.suptitle(
        f"resattn56_cifar reads digits: {right.double().mean():.1%} of {len(labels)} held-out images right",
        fontsize=14,
    )
    for index, axes in enumerate(figure.axes[: 4 * len(chosen)]):
        i = chosen[index % len(chosen)]
        axes.images[0].set_interpolation("bilinear")
        if index < len(chosen):
            axes.title.set(color="darkgreen" if right[i] else "red", fontsize=11)
        else:
            axes.contour(images[i, 0], levels=[0.5], colors="white", linewidths=1)
    return figure


def _random_shift(images: torch.Tensor) -> torch.Tensor:
    """Shift all images by the same random number of pixels, at most ``MAX_SHIFT`` each way."""
    left, top = torch.randint(2 * MAX_SHIFT + 1, (2,)).tolist()
    height, width = images.shape[-2:]
    return F.pad(images, [MAX_SHIFT] * 4)[..., top : top + height, left : left + width]


def _to_input(images: torch.Tensor, device: torch.device) -> torch.Tensor:
    return images.to(device).contiguous(memory_format=torch.channels_last)


def _autocast(device: torch.device) -> Any:
    """Autocast to bfloat16 where the processor computes in it."""
    if device.type == "cpu":
        capabilities: Any = getattr(torch.cpu, "get_capabilities", dict)()  # newer than our oldest torch
        pays = capabilities.get("avx512_bf16") or capabilities.get("amx_bf16")
    else:
        pays = device.type == "cuda" and torch.cuda.is_bf16_supported()
    return torch.autocast(device.type, torch.bfloat16, enabled=bool(pays))
