"""``timm-resattn list``."""

import argparse
from typing import Any

import timm

__all__ = ["add_command"]


def add_command(commands: Any) -> None:
    """Add ``timm-resattn list`` to the command line."""
    parser = commands.add_parser("list", help="print the models")
    parser.set_defaults(func=_list)


def _list(args: argparse.Namespace) -> int:
    with_weights = timm.list_models(module="resattn", pretrained=True)
    print(f"{'model':<20} {'parameters':>12}  {'input':<11}  tags of weights")
    for name in timm.list_models(module="resattn"):
        parameters = sum(p.numel() for p in timm.create_model(name, device="meta").parameters())
        input_size = "x".join(map(str, timm.get_pretrained_cfg_value(name, "input_size") or ()))
        tags = [_tag(n) for n in with_weights if n.partition(".")[0] == name]
        print(f"{name:<20} {parameters:>12,}  {input_size:<11}  {', '.join(tags) or '-'}")
    return 0


def _tag(pretrained_name: str) -> str:
    """The tag, with the licence where that forbids commercial use."""
    licence = str(timm.get_pretrained_cfg_value(pretrained_name, "license"))
    return pretrained_name.partition(".")[2] + (f" ({licence})" if "-nc-" in licence else "")
