"""``timm-resattn convert``."""

import argparse
from typing import Any

from ..convert import KINDS, convert
from .options import add_model_kwargs

__all__ = ["add_command"]


def add_command(commands: Any) -> None:
    """Add ``timm-resattn convert`` to the command line."""
    parser = commands.add_parser("convert", help="write a checkpoint as a folder for timm and the hub")
    parser.add_argument("source", metavar="SOURCE", help="file of torch.save, .safetensors, or .npz of Caffe's blobs")
    parser.add_argument("out_dir", metavar="OUT_DIR", help="folder to write; must not exist, or be empty")
    parser.add_argument("--model", required=True, metavar="NAME", help="model name, see timm-resattn list")
    parser.add_argument("--from", dest="kind", default="auto", choices=KINDS, help="what SOURCE holds (default: auto)")
    add_model_kwargs(parser)
    parser.add_argument("--num-classes", type=int, metavar="N", help="classes, if not those of SOURCE's classifier")
    parser.add_argument(
        "--inverse-std", action="store_true", help="Caffe's blobs hold inverse deviations, as the authors' fork writes"
    )
    parser.add_argument("--label-names", nargs="+", metavar="NAME", help="names of the classes, in order")
    parser.set_defaults(func=_convert)


def _convert(args: argparse.Namespace) -> int:
    folder = convert(
        args.source,
        args.out_dir,
        args.model,
        args.kind,
        args.model_kwargs,
        args.num_classes,
        args.label_names,
        args.inverse_std,
    )
    print(f'{folder}: every tensor compared; timm.create_model("local-dir:{folder}", pretrained=True) loads it')
    return 0
