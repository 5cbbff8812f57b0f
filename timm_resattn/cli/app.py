"""``timm-resattn app``."""

import argparse
from typing import Any, Dict

import timm

from ..app import build_app
from .options import add_model_options, load_model

__all__ = ["add_command"]

SHIPPED = ("resattn92_cifar", "resattn56_cifar")


def add_command(commands: Any) -> None:
    """Add ``timm-resattn app`` to the command line."""
    parser = commands.add_parser("app", help="look at masks in the browser, on this machine")
    add_model_options(parser, default=SHIPPED[0])
    parser.add_argument("--port", type=int, metavar="P", help="default: the first free one from 7860")
    parser.set_defaults(func=_app, extra="app")


def _app(args: argparse.Namespace) -> int:
    models: Dict[str, Any] = {args.model: load_model(args)}
    for name in SHIPPED:
        models.setdefault(name, timm.create_model(name, pretrained=True).eval())
    build_app(models).launch(server_name="127.0.0.1", server_port=args.port)
    return 0
