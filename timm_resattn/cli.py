"""The command line: ``timm-resattn``, or ``python -m timm_resattn``.

A command is one function that adds its parser to the subcommands and sets ``func``, which takes the parsed
arguments and returns the exit code. ImportError, OSError and ValueError from it become one sentence on stderr
and exit code 2. ``run`` alone is different: what follows it belongs to the script.
"""

import argparse
import importlib.metadata
import os
import re
import runpy
import sys
from pathlib import Path
from typing import Any, List, Optional, Sequence

import timm
import torch
from timm.data import create_transform, resolve_model_data_config
from torch import nn

from . import __version__
from .convert import add_command as _add_convert
from .convert import key_value
from .demo import run_demo
from .mask_tuning import train_masks_only_in_scripts
from .visualize import REDUCTIONS, capture_masks, check_picture_path, plot_masks

__all__ = ["main"]

TIMM_SCRIPTS = "train.py, validate.py, benchmark.py, inference.py, onnx_export.py, avg_checkpoints.py"
GOOD_ACCURACY = 0.95  # the demo stays clear of it with any seed, unless something is broken


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Run a command and return its exit code: 0, or 2 for a wrong use.

    Args:
        argv: The arguments, by default the process's.
    """
    argv = list(sys.argv[1:] if argv is None else argv)
    # argparse would take options such as --help, and one "--", out of the script's arguments
    masks_only = argv[:3] == ["run", "--train-only", "masks"]
    script = argv[3 if masks_only else 1 :]
    if argv[:1] == ["run"] and script and not script[0].startswith("-"):
        return run_script(script[0], script[1:], masks_only)

    parser = argparse.ArgumentParser(prog="timm-resattn", description="Residual Attention Networks for timm.")
    versions = f"%(prog)s {__version__} (timm {timm.__version__}, torch {torch.__version__})"
    parser.add_argument("--version", action="version", version=versions)
    commands = parser.add_subparsers(title="commands", dest="command", metavar="COMMAND", required=True)
    for add_command in (_add_list, _add_run, _add_masks, _add_convert, _add_demo):
        add_command(commands)
    args = parser.parse_args(argv)
    try:
        return args.func(args)
    except (ImportError, OSError, ValueError) as error:
        return _fail(args.command, str(error))


def _fail(command: str, message: str) -> int:
    print(f"timm-resattn {command}: {message}", file=sys.stderr)
    return 2


def _add_list(commands: Any) -> None:
    parser = commands.add_parser("list", help="print the models", description="Print the models.")
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


def _add_run(commands: Any) -> None:
    """For help, misuse and options before the script in other forms, see `main`."""
    parser = commands.add_parser(
        "run",
        help="run one of timm's scripts, or any other, with the models registered",
        description=f"Run a Python script with the models registered. timm's are {TIMM_SCRIPTS}.",
        epilog="With several processes: torchrun --nproc-per-node N -m timm_resattn run SCRIPT ...",
    )
    parser.add_argument(
        "--train-only",
        choices=("masks",),
        help="let the network that the script creates train its masks, final norm and head only",
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
        return _fail("run", f"there is no file {script!r}; {hint}")
    folder = Path(script).resolve().parent
    _note_other_timm(folder)
    sys.argv = [script, *args]
    # Python put this launcher's folder first, or with -m the working directory; with -P (Python 3.11) nothing
    if not getattr(sys.flags, "safe_path", False):
        sys.path[0] = str(folder)
    _fold_in_evaluation_mode()
    if masks_only:
        train_masks_only_in_scripts()
    runpy.run_path(str(Path(script).absolute()), run_name="__main__")
    return 0


def _fold_in_evaluation_mode() -> None:
    """Let the scripts' ``--reparam`` set evaluation mode first: they fold before they set it, which is refused."""
    fold = timm.utils.reparameterize_model

    def eval_and_fold(model: nn.Module, inplace: bool = False) -> nn.Module:
        return fold(model.eval(), inplace)

    timm.utils.reparameterize_model = timm.utils.model.reparameterize_model = eval_and_fold


def _note_other_timm(folder: Path) -> None:
    """Say on stderr which timm is used if one of another version lies beside the script."""
    if int(os.environ.get("LOCAL_RANK", "0")) > 0 or not (folder / "timm" / "__init__.py").is_file():
        return
    used, installed = timm.__version__, importlib.metadata.version("timm")
    version_file = folder / "timm" / "version.py"
    version_text = version_file.read_text() if version_file.is_file() else ""
    match = re.search(r"""__version__\s*=\s*['"](.+?)['"]""", version_text)
    beside = match[1] if match else "(version unknown)"
    if Path(timm.__file__).resolve().parent == folder / "timm":
        note = f"using timm {used} of {folder}, not the installed {installed}" if used != installed else ""
    else:
        note = f"using the installed timm {used}, not timm {beside} of {folder}" if used != beside else ""
    if note:
        print(f"timm-resattn run: {note}.", file=sys.stderr)


def _add_masks(commands: Any) -> None:
    parser = commands.add_parser(
        "masks",
        help="draw a trained model's masks over images",
        description="Draw a trained model's masks over images.",
    )
    parser.add_argument("images", nargs="+", metavar="IMAGE", help="an image file")
    parser.add_argument("--model", required=True, metavar="NAME", help="model name, see timm-resattn list")
    parser.add_argument("--checkpoint", metavar="FILE", help="weights of timm's train.py, or a state dict")
    parser.add_argument("--pretrained", action="store_true", help="use the model's published weights")
    parser.add_argument("--num-classes", type=int, metavar="N", help="classes, if not the model's own")
    parser.add_argument(
        "--model-kwargs",
        nargs="*",
        default=[],
        type=key_value,
        metavar="KEY=VALUE",
        help="model arguments",
    )
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
    from PIL import Image

    if not args.checkpoint and not args.pretrained:
        raise ValueError("the masks of random weights mean nothing; give --checkpoint FILE or --pretrained.")
    check_picture_path(args.out)
    model = _load_model(args).eval()
    if getattr(model, "in_chans", 3) != 3:
        raise ValueError("the model must take RGB images, in_chans=3.")
    config = resolve_model_data_config(model, {"img_size": args.img_size})
    transform = create_transform(**config, is_training=False)
    inputs = torch.stack([transform(Image.open(path).convert("RGB")) for path in args.images])
    with capture_masks(model) as masks, torch.inference_mode():
        model(inputs)
    if all(mask.flatten(2).std(2).max() < 1e-6 for mask in masks.values()):
        raise ValueError("these weights have untrained masks, the same everywhere (a trunk's, transplanted).")

    mean, std = (torch.tensor(config[key]).view(-1, 1, 1) for key in ("mean", "std"))
    titles: List[str] = [Path(path).name for path in args.images]
    plot_masks((inputs * std + mean).clamp(0, 1), masks, args.reduce or "varied", titles, path=args.out)
    print(f"{args.out}: masks of {len(masks)} Attention Modules over {len(titles)} images")
    return 0


def _load_model(args: argparse.Namespace) -> nn.Module:
    if args.checkpoint and not Path(args.checkpoint).is_file():
        raise ValueError(f"there is no file {args.checkpoint!r}.")
    try:
        return timm.create_model(
            args.model,
            pretrained=args.pretrained,
            checkpoint_path=args.checkpoint,
            num_classes=args.num_classes,
            **dict(args.model_kwargs),
        )
    except Exception as error:  # of any kind: names, arguments, files, pickles, the network
        source = f" with {args.checkpoint}" if args.checkpoint else ""
        reason = " ".join(str(error).split()) or type(error).__name__
        reason = reason if len(reason) < 300 else f"{reason[:300]} ..."
        hint = "" if timm.is_model(args.model) else "; timm-resattn list prints the names"
        raise ValueError(f"could not create {args.model}{source}: {reason}{hint}") from error


def _add_demo(commands: Any) -> None:
    parser = commands.add_parser(
        "demo",
        help="train a small network on scikit-learn's digits and draw its masks",
        description="Train resattn56_cifar on scikit-learn's digits (no download) and draw its masks.",
    )
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
