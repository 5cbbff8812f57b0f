"""``timm-resattn export``."""

import argparse
import sys
from pathlib import Path
from typing import Any, Optional, Sequence

import torch
from timm.data import create_transform, resolve_model_data_config
from torch import nn

from ..export import SUFFIXES, export, labels_of
from ..files import check_target
from ..pictures import find_pictures, read_picture
from .options import add_weight_options, load_model

__all__ = ["add_command"]

CALIBRATION_PICTURES = 256


def add_command(commands: Any) -> None:
    """Add ``timm-resattn export`` to the command line."""
    parser = commands.add_parser("export", help="write a model as an ONNX or .pt2 file to deploy")
    parser.add_argument("model", metavar="MODEL", help="model name, see timm-resattn list, or local-dir:FOLDER")
    parser.add_argument("out", metavar="OUT", help="file to write: .onnx, or .pt2 of torch.export")
    add_weight_options(parser)
    parser.add_argument("--dynamic", action="store_true", help="any batch and image size")
    parser.add_argument("--batch-size", type=int, default=1, metavar="B", help="images at a time (default: 1)")
    parser.add_argument("--img-size", type=int, metavar="N", help="image side, if not the model's own")
    parser.add_argument("--compile", action="store_true", help=".pt2: compiled by AOTInductor for this machine")
    parser.add_argument("--int8", action="store_true", help=".onnx: convolutions in int8; needs --calibrate")
    parser.add_argument(
        "--calibrate",
        metavar="DIR",
        help=f"folder of pictures, such as the model will see, to choose the ranges of int8 by: {CALIBRATION_PICTURES}"
        " of them, evenly spread",
    )
    parser.set_defaults(func=_export, extra="export")


def _export(args: argparse.Namespace) -> int:
    if not args.checkpoint and not args.pretrained:
        raise ValueError("give --checkpoint FILE or --pretrained: random weights are of no use.")
    if args.int8 != bool(args.calibrate):
        raise ValueError("--int8 and --calibrate DIR go together.")
    if args.batch_size < 1:
        raise ValueError(f"--batch-size must be at least 1; got {args.batch_size}.")
    check_target(args.out, SUFFIXES, "the file")
    chosen = find_pictures(args.calibrate) if args.int8 else []
    model = load_model(args)
    pictures = _read(chosen, model, args.img_size) if args.int8 else None
    error = export(
        model,
        args.out,
        dynamic=args.dynamic,
        batch_size=args.batch_size,
        img_size=args.img_size,
        compile=args.compile,
        pictures=pictures,
        labels=None if args.checkpoint else labels_of(model),
        progress=_say,
    )
    megabytes = Path(args.out).stat().st_size / 1e6
    print(f"{args.out}: {megabytes:.1f} MB, run and compared with the network: relative error {error:.1e}")
    return 0


def _say(line: str) -> None:
    print(f"timm-resattn export: {line}", file=sys.stderr, flush=True)


def _read(paths: Sequence[Path], model: nn.Module, img_size: Optional[int]) -> torch.Tensor:
    """Pictures as the model takes them; one that can't be read is named and left out."""
    config = resolve_model_data_config(model, {"img_size": img_size})
    if getattr(model, "in_chans", 3) != 3:
        raise ValueError("the model must take RGB images, in_chans=3.")
    transform: Any = create_transform(**config, is_training=False)
    count = min(len(paths), CALIBRATION_PICTURES)
    images = []
    for path in (paths[i * len(paths) // count] for i in range(count)):
        try:
            images.append(transform(read_picture(path)))
        except ValueError as error:
            _say(str(error))
    if not images:
        raise ValueError("none of the pictures to calibrate with can be read.")
    return torch.stack(images)
