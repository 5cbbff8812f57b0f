"""The command line: ``timm-resattn``, or ``python -m timm_resattn``.

A command is a file with one function that adds its parser to the subcommands and sets ``func``, which takes the
parsed arguments and returns the exit code. AssertionError, ImportError, MemoryError, OSError, RuntimeError, ValueError
become one sentence on stderr and exit code 2, Ctrl-C exit code 130. ``run`` alone is different: what follows it
belongs to the script.
"""

import argparse
import io
import os
import sys
from typing import Optional, Sequence

import timm
import torch

from .. import __version__
from ..labels import printable
from ..optimize import retain_freed_memory
from . import app, convert, demo, export, list, masks, predict, run

__all__ = ["main"]


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Run a command and return its exit code: 0, or 2 for a wrong use.

    Args:
        argv: The arguments; by default the process's, which then keeps the memory that it frees.
    """
    if argv is None:  # the process is the command's
        retain_freed_memory()
        argv = sys.argv[1:]
        if isinstance(sys.stdout, io.TextIOWrapper):  # names of files and classes may have any character
            sys.stdout.reconfigure(errors="backslashreplace")
    argv = [*argv]
    # argparse would take options such as --help, and one "--", out of the script's arguments
    masks_only = argv[:3] == ["run", "--train-only", "masks"]
    script = argv[3 if masks_only else 1 :]
    if argv[:1] == ["run"] and script and not script[0].startswith("-"):
        return run.run_script(script[0], script[1:], masks_only)

    parser = argparse.ArgumentParser(prog="timm-resattn", description="Residual Attention Networks for timm.")
    versions = f"%(prog)s {__version__} (timm {timm.__version__}, torch {torch.__version__})"
    parser.add_argument("--version", action="version", version=versions)
    commands = parser.add_subparsers(title="commands", dest="command", metavar="COMMAND", required=True)
    for command in (list, predict, masks, app, run, convert, export, demo):
        command.add_command(commands)
    args = parser.parse_args(argv)
    if args.command == "run":
        return int(args.func(args))
    try:
        code: int = args.func(args)
        sys.stdout.flush()
        return code
    except BrokenPipeError:  # the reader has seen enough; what Python would still flush goes nowhere
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except KeyboardInterrupt:
        print(f"timm-resattn {args.command}: interrupted", file=sys.stderr)
        return 130
    except (AssertionError, ImportError, MemoryError, OSError, RuntimeError, ValueError) as error:
        reason = printable(" ".join(str(error).split())) or type(error).__name__
        if isinstance(error, ModuleNotFoundError):
            reason += f'; pip install "timm-resattn[{getattr(args, "extra", "demo")}]" brings it'
        print(f"timm-resattn {args.command}: {reason}", file=sys.stderr)
        return 2
