"""``timm-resattn demo``."""

import argparse
import sys
from typing import Any

from ..demo import run_demo

__all__ = ["add_command"]

GOOD_ACCURACY = 0.95  # the demo stays clear of it with any seed, unless something is broken


def add_command(commands: Any) -> None:
    """Add ``timm-resattn demo`` to the command line."""
    parser = commands.add_parser("demo", help="train resattn56_cifar on scikit-learn's digits and draw its masks")
    parser.add_argument("--epochs", type=int, default=10, metavar="N", help="default: 10")
    parser.add_argument("--seed", type=int, default=42, metavar="S", help="default: 42")
    parser.add_argument("--out", default="resattn_demo.png", metavar="FILE", help="default: resattn_demo.png")
    parser.add_argument("--device", metavar="D", help="default: a GPU if there is one")
    parser.set_defaults(func=_demo)


def _demo(args: argparse.Namespace) -> int:
    result = run_demo(args.epochs, args.seed, args.out, args.device)
    print(
        f"{result.accuracy:.2%} of {result.num_held_out} held-out digits right "
        f"(seed {args.seed}, {args.epochs} epochs, {result.seconds:.0f} s); masks in {args.out}"
    )
    if result.accuracy <= GOOD_ACCURACY:
        print(f"timm-resattn demo: expected more than {GOOD_ACCURACY:.0%}.", file=sys.stderr)
        return 1
    return 0
