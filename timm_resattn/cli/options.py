"""The options that choose a model, shared by several commands."""

import argparse
import ast
from typing import Any, Tuple

import timm
from torch import nn

from ..checkpoints import load_weights, read_file

__all__ = ["add_model_options", "key_value", "load_model"]


def key_value(text: str) -> Tuple[str, Any]:
    """Parse an option's ``KEY=VALUE``: the value as a Python literal if it is one, else as text."""
    key, equals, value = text.partition("=")
    if not equals:
        raise argparse.ArgumentTypeError(f"{text!r} is not KEY=VALUE")
    try:
        return key, ast.literal_eval(value)
    except (SyntaxError, ValueError):
        return key, value


def add_model_options(parser: argparse.ArgumentParser) -> None:
    """Add what `load_model` reads."""
    parser.add_argument("--model", required=True, metavar="NAME", help="model name, see timm-resattn list")
    parser.add_argument("--checkpoint", metavar="FILE", help="weights of timm's train.py, or a state dict")
    parser.add_argument("--pretrained", action="store_true", help="use the model's published weights")
    parser.add_argument("--num-classes", type=int, metavar="N", help="classes, if not the model's own")
    parser.add_argument(
        "--model-kwargs", nargs="*", default=[], type=key_value, metavar="KEY=VALUE", help="model arguments"
    )


def load_model(args: argparse.Namespace) -> nn.Module:
    """The model that the options ask for, in evaluation mode; a `ValueError` of one sentence if there is none."""
    try:
        model = timm.create_model(
            args.model, pretrained=args.pretrained, num_classes=args.num_classes, **dict(args.model_kwargs)
        )
    except Exception as error:  # of any kind: names, arguments, the network, files
        reason = " ".join(str(error).split()) or type(error).__name__
        reason = reason if len(reason) < 300 else f"{reason[:300]} ..."
        hint = "" if timm.is_model(args.model) else "; timm-resattn list prints the names"
        raise ValueError(f"could not create {args.model}: {reason}{hint}") from error
    if args.checkpoint:
        checkpoint = read_file(args.checkpoint)
        try:
            load_weights(model, checkpoint)
        except ValueError as error:
            raise ValueError(f"{args.checkpoint}: {error}") from error
    return model.eval()
