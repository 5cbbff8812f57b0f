"""``timm-resattn predict``."""

import argparse
import json
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any, List, Optional, Tuple

import torch
from timm.data import resolve_model_data_config

from ..files import check_target, written_whole
from ..labels import class_names, printable
from .options import check_positive, load_model
from .reading import Pictures, add_picture_options

__all__ = ["add_command"]

BATCH_SIZE = 16


def add_command(commands: Any) -> None:
    """Add ``timm-resattn predict`` to the command line."""
    parser = commands.add_parser("predict", help="classify pictures")
    add_picture_options(parser, default="resattn50")
    parser.add_argument("--topk", type=int, default=3, metavar="K", help="classes for each picture (default: 3)")
    parser.add_argument("--json", action="store_true", help="write a JSON object a line")
    parser.add_argument("--out", metavar="FILE", help="write there, at the end, instead of to standard output")
    parser.set_defaults(func=_predict)


def _predict(args: argparse.Namespace) -> int:
    if not args.checkpoint and not args.pretrained:
        raise ValueError("random weights predict nothing; give --checkpoint FILE or published weights.")
    check_positive("--img-size", args.img_size)
    target = check_target(args.out) if args.out else None
    model = load_model(args)
    classes: int = model.num_classes
    if not 1 <= args.topk <= classes:
        raise ValueError(f"--topk must be from 1 to the model's {classes} classes; got {args.topk}.")
    names = class_names(model)
    pictures = Pictures("predict", args.paths, model, resolve_model_data_config(model, {"img_size": args.img_size}))
    done = 0
    with ExitStack() as stack:
        output = sys.stdout
        if target:
            partial = stack.enter_context(written_whole(target))
            output = stack.enter_context(partial.open("w", encoding="utf-8"))
        for paths, images in pictures.batches(BATCH_SIZE):
            with torch.inference_mode():
                probabilities = model(images).softmax(1)
            for path, values, indices in zip(paths, *probabilities.topk(args.topk)):
                print(_line(path, list(zip(indices.tolist(), values.tolist())), names, args.json), file=output)
            done += len(paths)
        if not done:
            raise ValueError("none of the pictures could be read.")
    return 1 if pictures.unreadable else 0


def _line(path: Path, best: List[Tuple[int, float]], names: Optional[List[str]], as_json: bool) -> str:
    if as_json:
        shown = str(path).encode("utf-8", "surrogateescape").decode("utf-8", "replace")
        label = (lambda index: {"label": names[index]}) if names else (lambda index: {})
        predictions = [{"class": index, **label(index), "probability": value} for index, value in best]
        return json.dumps({"path": shown, "predictions": predictions})
    line = f"{path}: " + ", ".join(f"{names[index] if names else index} {value:.1%}" for index, value in best)
    return printable(line)
