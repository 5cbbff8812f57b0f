"""``timm-resattn export``."""

import argparse
import sys
from pathlib import Path
from typing import Any, Optional

import torch
from timm.data import resolve_model_data_config

from ..export import SUFFIXES, export
from ..files import check_target
from ..labels import class_names
from .options import add_weight_options, check_positive, load_model
from .reading import Pictures

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
        raise ValueError("random weights are of no use; give --checkpoint FILE or published weights.")
    if args.int8 != bool(args.calibrate):
        raise ValueError("--int8 and --calibrate DIR go together.")
    check_positive("--batch-size", args.batch_size)
    check_positive("--img-size", args.img_size)
    check_target(args.out, SUFFIXES)
    if args.calibrate and not Path(args.calibrate).is_dir():
        raise ValueError(f"there is no folder {args.calibrate!r} to calibrate with.")
    model = load_model(args)
    pictures = _calibration(args.calibrate, model, args.img_size) if args.int8 else None
    error = export(
        model,
        args.out,
        dynamic=args.dynamic,
        batch_size=args.batch_size,
        img_size=args.img_size,
        compile=args.compile,
        pictures=pictures,
        labels=class_names(model),
        progress=_say,
    )
    megabytes = Path(args.out).stat().st_size / 1e6
    print(f"{args.out}: {megabytes:.1f} MB, run and compared with the network: relative error {error:.1e}")
    return 0


def _say(line: str) -> None:
    print(f"timm-resattn export: {line}", file=sys.stderr, flush=True)


def _calibration(folder: str, model: Any, img_size: Optional[int]) -> torch.Tensor:
    """Some of a folder's pictures, evenly spread, as the model takes them."""
    pictures = Pictures("export", [folder], model, resolve_model_data_config(model, {"img_size": img_size}))
    found = pictures.paths
    count = min(len(found), CALIBRATION_PICTURES)
    pictures.paths = [found[i * len(found) // count] for i in range(count)]
    images = [image for _, image in pictures]
    if not images:
        raise ValueError("none of the pictures to calibrate with can be read.")
    return torch.stack(images)
