"""Train a network on CIFAR with the whole set on the device: for experiments; users train with timm's train.py.

    python -m benchmarks.cifar --model resattn56_cifar --data-dir DIR --out FOLDER [--recipe paper|modern] [--resume]

Batches and augmentation of an update are a function of the seed and the number of the update, so a run that was killed
goes on with ``--resume`` as if it had never stopped. OUT gets

    config.json         the command and all values of the run
    log.jsonl           one line an epoch; ``dead`` is the share of channels that no ReLU lets through
    last.pt             checkpoint (weights, moving average, optimiser, position), for --resume
    result.json         at the end: error of the last epoch, never of the best one, and how it came about
    model.safetensors   at the end: the weights; ema.safetensors: their moving average

With ``--val-images N`` the error is that on N training images which are not trained on, and the test set is not read.
``--resume OTHER/last.pt`` goes on from another run, with more epochs too as long as the learning rate was the same up
to there: a ``--sched wsd`` run can be prolonged from any checkpoint before its decay.

``--init`` begins with the weights of another run, ``OTHER/last.pt``, or of a ``.safetensors`` file, as those that ship,
also of a network with fewer Attention Modules: what this one has beyond it begins as the identity
(`timm_resattn.checkpoints.deepen`), and the whole computes the same function. So it does with the weights of a residual
network, which becomes its trunk (`timm_resattn.transplant_trunk`); ``--train-only masks`` then leaves that as it is.
"""

import argparse
import json
import math
import signal
import sys
import time
from pathlib import Path

import torch

from benchmarks.cifar.arguments import add_device_arguments, add_recipe_arguments, check_least, device_of, recipe_of
from benchmarks.cifar.data import CLASSES
from benchmarks.cifar.outputs import read_checkpoint, read_start, train, write_result
from benchmarks.cifar.run import Run, load_data
from benchmarks.cifar.trainer import Trainer
from benchmarks.common.files import locked
from timm_resattn.cli.options import add_model_kwargs
from timm_resattn.optimize import retain_freed_memory


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "python -m benchmarks.cifar", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", required=True, metavar="NAME", help="timm's name of it, as resattn56_cifar")
    add_model_kwargs(parser)
    parser.add_argument("--data-dir", type=Path, required=True, help="see benchmarks.cifar.data.load_cifar")
    parser.add_argument("--dataset", choices=tuple(CLASSES), default="cifar10", help="default: cifar10")
    parser.add_argument("--images", type=int, metavar="N", help="train on the first N training images (default: all)")
    parser.add_argument("--val-images", type=int, default=0, metavar="N", help="hold N of them out, read no test set")
    parser.add_argument("--label-noise", type=float, default=0.0, metavar="P", help="share of labels made wrong")
    parser.add_argument("--seed", type=int, default=0)
    add_device_arguments(parser)
    parser.add_argument("--eval-every", type=int, default=0, metavar="N", help="also measure every N epochs")
    parser.add_argument("--max-seconds", type=float, metavar="S", help="stop with a checkpoint after S seconds, exit 0")
    parser.add_argument("--stop-epoch", type=int, default=0, metavar="E", help="stop with a checkpoint after epoch E")
    parser.add_argument(
        "--resume", nargs="?", const=True, metavar="FILE", help="go on from FILE (default: OUT/last.pt, if it is there)"
    )
    parser.add_argument("--init", metavar="FILE", help="begin with the weights of this checkpoint or safetensors file")
    parser.add_argument(
        "--train-only", choices=("masks",), help="train masks, final norm and head alone (default: all)"
    )
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER")
    add_recipe_arguments(parser, "modern")
    return parser


def run_of(args: argparse.Namespace) -> Run:
    """The run that the arguments ask for; raises a `ValueError` as `Recipe` and `Run` do."""
    return Run(
        args.model,
        recipe_of(args),
        model_kwargs=args.model_kwargs,
        dataset=args.dataset,
        images=args.images,
        val_images=args.val_images,
        label_noise=args.label_noise,
        seed=args.seed,
        amp=args.amp,
        init=args.init,
        train_only=args.train_only,
    )


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns the exit status: 0 at the end and after ``--max-seconds``, 143 after SIGTERM."""
    began = time.monotonic()
    parser = build_parser()
    args = parser.parse_args(argv)
    last = args.out / "last.pt"
    try:
        device = device_of(args.device)
        run = run_of(args)
        check_least("--eval-every", args.eval_every, 0)
        check_least("--stop-epoch", args.stop_epoch, 0)
        check_least("--max-seconds", args.max_seconds, 0)
        if last.exists() and not args.resume:
            raise ValueError(f"{args.out} holds a run; give --resume to go on with it, or another --out")
        torch.backends.cudnn.benchmark = True  # all batches have one size
        if device.type == "cpu":
            retain_freed_memory()
        elif device.type == "cuda" and device.index:
            torch.cuda.set_device(device)  # streams and events are the current device's
        trainer = Trainer(run, load_data(run, args.data_dir, device), device, args.compile)
        source = last if args.resume is True or last.exists() else Path(args.resume or last)
        if source.exists() or source != last:
            trainer.load_state_dict(read_checkpoint(source))
        elif args.init:
            trainer.begin_with(*read_start(Path(args.init)))
    except (OSError, ValueError) as error:
        parser.error(str(error))

    signals: list[int] = []
    handler = signal.signal(signal.SIGTERM, lambda number, _: signals.append(number))
    deadline = math.inf if args.max_seconds is None else began + args.max_seconds
    result = None
    try:
        with locked(args.out):
            finished = train(
                trainer,
                args.out,
                lambda: bool(signals) or time.monotonic() >= deadline,
                args.eval_every,
                args.stop_epoch,
            )
            if finished and not (args.out / "result.json").exists():
                result = write_result(trainer, args.out)
    except (FloatingPointError, OSError, ValueError) as error:
        print(f"{parser.prog}: error: {error}", file=sys.stderr)
        return 1
    finally:
        signal.signal(signal.SIGTERM, handler)
    if not finished:
        print(f"stopped after {trainer.step} of {trainer.steps} updates; go on with --resume", file=sys.stderr)
        return 128 + signals[0] if signals else 0
    if result:
        print(json.dumps({key: result[key] for key in ("error", "error_ema", "images_per_second", "dead")}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
