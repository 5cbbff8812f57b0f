"""``timm-resattn run``: timm's scripts, or any other, with the models registered."""

import runpy
import sys
from pathlib import Path
from typing import Any, Sequence

import timm

from ..mask_tuning import train_masks_only_in_scripts

__all__ = ["add_command", "run_script"]

TIMM_SCRIPTS = "train.py, validate.py, benchmark.py, inference.py, onnx_export.py, avg_checkpoints.py"


def add_command(commands: Any) -> None:
    """Add ``timm-resattn run`` to the command line, for help, misuse and options in other forms: see `main`."""
    parser = commands.add_parser(
        "run",
        help="run one of timm's scripts, or any other, with the models registered",
        description=f"Run a Python script with the models registered. timm's are {TIMM_SCRIPTS}.",
        epilog="With several processes: torchrun --nproc-per-node N -m timm_resattn run SCRIPT ...",
    )
    parser.add_argument(
        "--train-only",
        choices=("masks",),
        help="let the networks that the script creates train their masks, final norm and head only",
    )
    parser.add_argument("script", metavar="SCRIPT")
    parser.add_argument("args", nargs="...", help="handed to the script as they are")
    parser.set_defaults(func=lambda args: run_script(args.script, args.args, args.train_only == "masks"))


def run_script(script: str, args: Sequence[str], masks_only: bool = False) -> int:
    """Run a script as ``python script args...`` would, in this process, where the models are registered.

    The process is the script's from here on: its exceptions and exit codes pass, and ``sys.argv`` and
    ``sys.path`` are not restored. With ``masks_only`` the networks that it creates train their masks only.
    """
    if not Path(script).is_file():
        hint = (
            f"timm keeps its scripts ({TIMM_SCRIPTS}) not in its wheel but at the top of its GitHub "
            "repository huggingface/pytorch-image-models; get those of the installed version with: git clone "
            f"--depth 1 --branch v{timm.__version__} https://github.com/huggingface/pytorch-image-models"
        )
        print(f"timm-resattn run: there is no file {script!r}; {hint}", file=sys.stderr)
        return 2
    sys.argv = [script, *args]
    # Python put this launcher's folder first, or with -m the working directory; with -P (Python 3.11) nothing
    if not getattr(sys.flags, "safe_path", False):
        sys.path[0] = str(Path(script).resolve().parent)
    if masks_only:
        train_masks_only_in_scripts()
    runpy.run_path(str(Path(script).absolute()), run_name="__main__")
    return 0
