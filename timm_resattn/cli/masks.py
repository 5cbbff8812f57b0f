"""``timm-resattn masks``."""

import argparse
from pathlib import Path
from typing import Any

import torch
from timm.data import create_transform, resolve_model_data_config

from ..pictures import read_picture
from ..visualize import REDUCTIONS, capture_masks, check_picture_path, plot_masks
from .options import add_model_options, load_model

__all__ = ["add_command"]


def add_command(commands: Any) -> None:
    """Add ``timm-resattn masks`` to the command line."""
    parser = commands.add_parser("masks", help="draw a trained model's masks over images")
    parser.add_argument("images", nargs="+", metavar="IMAGE", help="an image file")
    add_model_options(parser)
    parser.add_argument("--img-size", type=int, metavar="N", help="image side, if not the model's own")
    parser.add_argument(
        "--reduce",
        action="append",
        metavar="HOW",
        help=f"what to draw of a mask's channels, repeatable: {', '.join(REDUCTIONS)} (default: varied)",
    )
    parser.add_argument("--out", default="masks.png", metavar="FILE", help="default: masks.png")
    parser.set_defaults(func=_masks)


def _masks(args: argparse.Namespace) -> int:
    if not args.checkpoint and not args.pretrained:
        raise ValueError("the masks of random weights mean nothing; give --checkpoint FILE or --pretrained.")
    check_picture_path(args.out)
    model = load_model(args)
    if getattr(model, "in_chans", 3) != 3:
        raise ValueError("the model must take RGB images, in_chans=3.")
    config = resolve_model_data_config(model, {"img_size": args.img_size})
    transform = create_transform(**config, is_training=False)
    inputs = torch.stack([transform(read_picture(path)) for path in args.images])
    with capture_masks(model) as masks, torch.inference_mode():
        model(inputs)
    if all(mask.flatten(2).std(2).max() < 1e-6 for mask in masks.values()):
        raise ValueError("these weights have untrained masks, the same everywhere (a trunk's, transplanted).")

    mean, std = (torch.tensor(config[key]).view(-1, 1, 1) for key in ("mean", "std"))
    titles = [Path(path).name for path in args.images]
    plot_masks((inputs * std + mean).clamp(0, 1), masks, args.reduce or "varied", titles, path=args.out)
    print(f"{args.out}: masks of {len(masks)} Attention Modules over {len(titles)} images")
    return 0
