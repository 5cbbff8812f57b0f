"""Pictures that are named on the command line: the options, and reading them."""

import argparse
import sys
from itertools import islice
from pathlib import Path
from typing import Any, Callable, Iterator, List, Sequence, Tuple

import torch
from PIL import Image
from timm.data import create_transform
from torch import nn

from ..labels import printable
from ..pictures import find_pictures, read_picture
from .options import add_model_options

__all__ = ["Pictures", "add_picture_options"]


def add_picture_options(parser: argparse.ArgumentParser, default: str) -> None:
    """Add pictures, the model that takes them, by default ``default``, and their size."""
    parser.add_argument(
        "paths", nargs="+", metavar="PATH", help="a picture, or a folder of them, searched to its depth"
    )
    add_model_options(parser, default)
    parser.add_argument("--img-size", type=int, metavar="N", help="image side, if not the model's own")


class Pictures:
    """Pictures of files and folders, transformed; those that can't be read are named on stderr and left out.

    Iterating gives path and image ``(3, H, W)``; afterwards ``unreadable`` counts what was left out.

    Args:
        command: The command's name, for the messages.
        paths: Files and folders.
        model: The network that will take them.
        config: Its data config.

    Raises:
        ValueError: A folder holds no picture, or the network takes no RGB images.
    """

    def __init__(self, command: str, paths: Sequence[str], model: nn.Module, config: "dict[str, Any]") -> None:
        if getattr(model, "in_chans", 3) != 3:
            raise ValueError("the model must take RGB images, in_chans=3.")
        self.command = command
        self.paths = find_pictures(paths)
        try:
            self.transform: Callable[[Image.Image], torch.Tensor] = create_transform(**config, is_training=False)
        except Exception as error:  # of any kind: it may be of a file
            raise ValueError(
                f"the model's data configuration makes no sense ({type(error).__name__}: {error})"
            ) from error
        self.unreadable = 0

    def __iter__(self) -> Iterator[Tuple[Path, torch.Tensor]]:
        from tqdm import tqdm

        for path in tqdm(self.paths, desc="pictures", unit="picture", disable=None, leave=False):
            try:
                picture = read_picture(path)
            except ValueError as error:
                self.unreadable += 1
                print(f"timm-resattn {self.command}: {printable(str(error))}", file=sys.stderr)
                continue
            yield path, self.transform(picture)

    def batches(self, size: int) -> Iterator[Tuple[List[Path], torch.Tensor]]:
        """Paths and images ``(B, 3, H, W)``, at most ``size`` at a time."""
        pictures = iter(self)
        while batch := list(islice(pictures, size)):
            yield [path for path, _ in batch], torch.stack([image for _, image in batch])
