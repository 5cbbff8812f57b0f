"""Fine-tune a network on a folder of images, from published weights and from scratch, and draw both.

    python examples/finetune.py [FOLDER] [--model resattn56_cifar] [--epochs 20] [--seeds 0 1] [--device cpu]
                                [--out finetune.png]

FOLDER holds ``train/<class>/`` and ``test/<class>/`` with image files. Without it, ``digits`` is written: 100 of
scikit-learn's handwritten digits to train on, 10 a class, and 300 others to test on. Needs the extra ``demo``.
"""

import argparse
from pathlib import Path

import matplotlib.figure
import timm
import torch
import torch.nn.functional as F
from PIL import Image
from sklearn import datasets, model_selection
from timm.optim import create_optimizer_v2
from timm.utils import random_seed
from torch import nn
from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder

import timm_resattn  # noqa: F401  registers the networks


def write_digits(folder: Path) -> None:
    """Write scikit-learn's digits as an image folder."""
    digits = datasets.load_digits()
    partial = folder.with_name(f"{folder.name}.partial")
    train, test = model_selection.train_test_split(
        range(len(digits.target)), train_size=100, test_size=300, stratify=digits.target, random_state=0
    )
    for split, indices in {"train": train, "test": test}.items():
        for i in indices:  # 8x8 pixels with values to 16
            path = partial / split / str(digits.target[i]) / f"{i:04}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray((digits.images[i] * 255 / 16).astype("uint8")).resize((32, 32)).save(path)
    partial.rename(folder)


def load(folder: Path, model: nn.Module, batch_size: int, hflip: float) -> tuple[DataLoader, DataLoader]:
    """Training and test images, transformed as the network's data configuration says."""
    config = timm.data.resolve_model_data_config(model)
    # scale and ratio stay near the whole image
    augment = timm.data.create_transform(
        **config, is_training=True, hflip=hflip, scale=(0.7, 1.0), ratio=(0.9, 1.1), color_jitter=None
    )
    plain = timm.data.create_transform(**config, is_training=False)
    images = ImageFolder(folder / "train", augment)
    return (
        DataLoader(images, min(batch_size, len(images)), shuffle=True, drop_last=True),
        DataLoader(ImageFolder(folder / "test", plain), 100),
    )


@torch.inference_mode()
def accuracy(model: nn.Module, loader: DataLoader) -> float:
    """Share of images classified as they should be."""
    model.eval()
    device = next(model.parameters()).device
    right = sum(int((model(images.to(device)).argmax(1).cpu() == labels).sum()) for images, labels in loader)
    return right / len(loader.dataset)


def fine_tune(args: argparse.Namespace, pretrained: bool, seed: int) -> list[tuple[int, float]]:
    """Train all of a network; epochs and test accuracy after them."""
    random_seed(seed)
    classes = len(ImageFolder(args.folder / "train").classes)
    model = timm.create_model(args.model, pretrained=pretrained, num_classes=classes, device=args.device)
    train, test = load(args.folder, model, args.batch_size, args.hflip)
    optimizer = create_optimizer_v2(model, opt="adamw", lr=args.lr, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, args.lr, args.epochs * len(train), pct_start=0.1)
    accuracies = []
    for epoch in range(1, args.epochs + 1):
        model.train()
        for images, labels in train:
            loss = F.cross_entropy(model(images.to(args.device)), labels.to(args.device))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
        if epoch % 5 == 0 or epoch == args.epochs:
            accuracies.append((epoch, accuracy(model, test)))
    return accuracies


def main() -> None:
    """Fine-tune from both starts, print the accuracies, draw the curves."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=Path, help="default: digits, written if it is not there")
    parser.add_argument("--model", default="resattn56_cifar")
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--batch-size", type=int, default=20)
    parser.add_argument("--lr", type=float, default=3e-3)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--out", default="finetune.png")
    args = parser.parse_args()
    args.hflip = 0.5
    if args.folder is None:
        args.folder, args.hflip = Path("digits"), 0.0  # digits have a left and a right
        if not args.folder.exists():
            write_digits(args.folder)
    elif not all((args.folder / split).is_dir() for split in ("train", "test")):
        parser.error(f"{args.folder} must hold the folders train and test")
    if ImageFolder(args.folder / "train").classes != ImageFolder(args.folder / "test").classes:
        parser.error(f"{args.folder}/train and {args.folder}/test must hold the same classes")

    figure = matplotlib.figure.Figure(figsize=(5, 3.5), layout="constrained")
    axes = figure.subplots()
    axes.set(xlabel="epoch", ylabel="test accuracy")
    for pretrained, color in ((True, "tab:blue"), (False, "tab:orange")):
        start = "pretrained" if pretrained else "from scratch"
        for seed in args.seeds:
            accuracies = fine_tune(args, pretrained, seed)
            shown = ", ".join(f"{share:.2%} after {epoch} epochs" for epoch, share in accuracies)
            print(f"{start}, seed {seed}: {shown}", flush=True)
            axes.plot(*zip(*accuracies, strict=True), color=color, label=start if seed == args.seeds[0] else None)
    axes.legend()
    figure.savefig(args.out, dpi=110)


if __name__ == "__main__":
    main()
