"""Average the weights of several runs of one network: stochastic weight averaging (Izmailov et al. 2018).

    python -m benchmarks.cifar.average FILE ... --data-dir DIR --out FOLDER [--test]

FILE is a checkpoint of `benchmarks.cifar`, of which the moving average is taken where there is one, or a
``.safetensors`` file. It pays where one run began with the weights of the other, so that the way between both is all
of low loss: "Averaging Weights Leads to Wider Optima and Better Generalization", https://arxiv.org/abs/1803.05407. The
norms' statistics are measured anew, on augmented training images. OUT gets

    model.safetensors   the mean, which another run can begin with by ``--init``
    model.json          where it comes from
    result.json         with ``--test``, which reads the test set: all that `benchmarks.ship` needs

Printed is the loss on augmented training images, of each file's weights and of their mean: the choice of what to
average can be made by it, without the test set.
"""

import argparse
import hashlib
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional as F
from torch.optim.swa_utils import update_bn

from benchmarks.cifar.arguments import check_least, device_of
from benchmarks.cifar.data import normalize, random_crop_flip
from benchmarks.cifar.outputs import origin_of, read_checkpoint, read_start, seed_update, weights_of
from benchmarks.cifar.recipe import RECIPES
from benchmarks.cifar.run import Run, load_data
from benchmarks.cifar.trainer import error_percent
from benchmarks.common.files import save_atomically
from benchmarks.common.provenance import provenance, write_json

COMMAND = "python -m benchmarks.cifar.average"
BATCH_SIZE = 250


def read_member(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Weights to average and where they come from, a run's log among it; raises a `ValueError` as `read_start` does."""
    if path.suffix == ".safetensors":
        return read_start(path)
    state = read_checkpoint(path)
    return state["state_dict_ema"] or state["state_dict"], origin_of(state) | {"log": state["log"]}


def mean_of(members: list[dict[str, torch.Tensor]], model: nn.Module) -> dict[str, torch.Tensor]:
    """The mean of every tensor, in its own type; raises a `ValueError` unless all of them are ``model``'s."""
    own = model.state_dict()
    for number, member in enumerate(members, start=1):
        wrong = sorted(
            name for name in own.keys() | member.keys()
            if name not in own or name not in member or own[name].shape != member[name].shape
        )  # fmt: skip
        if wrong:
            raise ValueError(
                f"file {number} does not hold the network's weights: missing, unexpected or misshapen "
                f"{', '.join(wrong)}"
            )
    return {
        name: torch.stack([member[name].double() for member in members]).mean(0).to(tensor.dtype)
        for name, tensor in own.items()
    }


def augmented(images: torch.Tensor, count: int, seed: int, place: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Batches ``(input, index)`` of so many random training images, cropped and flipped, drawn by seed and place."""
    seed_update(seed, place)
    order = np.random.default_rng([seed, place]).permutation(len(images))[:count]
    index = torch.from_numpy(order).to(images.device)
    return [(random_crop_flip(normalize(images[part])), part) for part in index.split(BATCH_SIZE)]


@torch.inference_mode()
def loss_of(model: nn.Module, batches: list[tuple[torch.Tensor, torch.Tensor]], labels: torch.Tensor) -> float:
    """Mean cross-entropy of the network as it is in evaluation."""
    model.eval()
    total = sum(F.cross_entropy(model(x), labels[index], reduction="sum").item() for x, index in batches)
    return total / sum(len(index) for _, index in batches)


def common_run(starts: list[dict[str, Any]], seed: int, model: str | None) -> Run:
    """The run that the files' have in common: its network, of weights trained on all of the training images.

    Raises:
        ValueError: No file tells the network and ``model`` does not either, or the files are of several.
    """
    runs = [Run.from_dict(start["run"]) for start in starts if "run" in start]
    models = {run.model for run in runs} | ({model} if model else set())
    if len(models) != 1:
        raise ValueError(f"the files must be of one network, or --model must name it; got {sorted(models) or 'none'}")
    if not runs:
        return Run(models.pop(), RECIPES["modern"], seed=seed)
    shared = {(run.dataset, run.images, run.val_images, run.label_noise, str(run.model_kwargs)) for run in runs}
    if len(shared) != 1 or any(run.recipe.mean != RECIPES["modern"].mean for run in runs):
        raise ValueError("the files must be of runs on the same images, labels and input, with the same model_kwargs")
    last = runs[-1]
    return Run(
        last.model, RECIPES["modern"], last.model_kwargs, last.dataset, last.images, last.val_images,
        last.label_noise, seed, amp=False,
    )  # fmt: skip


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(COMMAND, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE", help="checkpoint or .safetensors file")
    parser.add_argument("--model", metavar="NAME", help="of .safetensors files; a checkpoint tells its own")
    parser.add_argument("--data-dir", type=Path, required=True, help="see benchmarks.cifar.data.load_cifar")
    parser.add_argument("--norm-images", type=int, default=10_000, metavar="N", help="images for the norms' statistics")
    parser.add_argument("--loss-images", type=int, default=2_000, metavar="N", help="training images for the loss")
    parser.add_argument("--seed", type=int, default=0, help="of crops and flips")
    parser.add_argument("--device", default="cpu", help="default: cpu")
    parser.add_argument("--test", action="store_true", help="read the error on the held-out images, at the end")
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER")
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    parser = build_parser()
    args = parser.parse_args(argv)
    try:
        device = device_of(args.device)
        check_least("--norm-images", args.norm_images, BATCH_SIZE)
        check_least("--loss-images", args.loss_images, 1)
        if len(args.files) < 2:
            raise ValueError("FILE must be given twice or more: the mean of one is itself")
        members, starts = zip(*map(read_member, args.files), strict=True)
        run = common_run(list(starts), args.seed, args.model)
        model = run.create_model().to(device, memory_format=torch.channels_last)
        mean = mean_of(list(members), model)
        data = load_data(run, args.data_dir, device)
    except (OSError, ValueError) as error:
        parser.error(str(error))

    check = augmented(data.images, args.loss_images, args.seed, 0)
    for path, member in zip(args.files, members, strict=True):
        model.load_state_dict(member)
        print(f"{path}: loss {loss_of(model, check, data.labels):.4f}", flush=True)
    model.load_state_dict(mean)
    update_bn(augmented(data.images, args.norm_images, args.seed, 1), model)
    loss = loss_of(model, check, data.labels)
    print(f"mean: loss {loss:.4f}", flush=True)

    args.out.mkdir(parents=True, exist_ok=True)
    target = args.out / "model.safetensors"
    save_atomically(target, lambda path: save_file(weights_of(model), path))
    digest = hashlib.sha256(target.read_bytes()).hexdigest()
    options = [f"--{name} {getattr(args, name.replace('-', '_'))}" for name in ("norm-images", "loss-images", "seed")]
    named = f" --model {args.model}" if args.model else ""
    command = f"{COMMAND} {' '.join(map(str, args.files))}{named} --data-dir DIR {' '.join(options)} --out OUT"
    origin = {"sha256": digest, "command": command, "members": list(starts)}
    write_json(args.out / "model.json", origin)
    if args.test:
        held_out = data.held_out
        result = {
            "command": f"{command} --test",
            **provenance(),
            "average": origin["members"],
            "device": device.type,
            "seed": args.seed,
            "schedule": run.as_dict(),
            "training_images": len(data.labels),
            "held_out": f"{data.held_out_name}, {len(held_out[1])} images",
            "parameters": sum(parameter.numel() for parameter in model.parameters()),
            "training_loss": round(loss, 4),
            "error": round(error_percent(model, *held_out), 4),
            "error_ema": None,
        }
        write_json(args.out / "result.json", result)
        print(json.dumps({"error": result["error"]}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
