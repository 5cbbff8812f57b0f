"""Is a transplanted trunk a better start? CIFAR-10, the same budget with and without it.

    python -m benchmarks.cifar.transplant --data-dir DIR [--images N] [--donor-epochs E] [--epochs E] [--seeds S ...]

For each seed: a plain pre-activation residual network (three units a stage: resattn56_cifar without modules) is trained
as the donor; then `resattn56_cifar` is trained for ``--epochs`` epochs twice, from scratch and from the donor's
transplanted trunk. The schedule of both is the same (Nesterov SGD, one warm-up epoch, cosine to zero, crop and flip,
label smoothing 0.1); the transplanted network starts at ``--fine-tune-lr``. Each finished run is kept in ``--work-dir``
and not repeated. Writes results.csv, record.json and plot.png to benchmarks/results/cifar/transplant/ and the pages'
table; errors are those of the last epoch.
"""

import argparse
import json
import sys
import time
from pathlib import Path

import timm
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from timm.optim import create_optimizer_v2
from timm.scheduler import create_scheduler_v2
from tqdm import tqdm

from benchmarks.cifar.data import load_cifar, normalize, random_crop_flip
from benchmarks.cifar.trainer import error_percent
from benchmarks.common.files import write_csv, write_figure, write_json
from benchmarks.common.pages import write_block
from benchmarks.common.provenance import RESULTS, ROOT, check_recordable, provenance
from benchmarks.common.tables import markdown_table
from timm_resattn.checkpoints import transplant_trunk

COMMAND = "python -m benchmarks.cifar.transplant"
MODEL = "resattn56_cifar"
DONOR_ARGS = dict(depths=(0, 0, 0), closing_units=(2, 2, 2), mask_type="none")
BATCH_SIZE = 128
RECORD = RESULTS / "cifar" / "transplant"


def test_error(model: torch.nn.Module, data: dict) -> float:
    """Error in percent on the test images, in mixed precision as in training."""
    images, labels = data["test"]
    with torch.autocast(images.device.type, torch.bfloat16):
        return error_percent(model, images, labels)


def train(model: torch.nn.Module, data: dict, epochs: int, lr: float, name: str) -> list[dict[str, float]]:
    """Train in place; test error and mean loss of each epoch, and of the start (epoch 0)."""
    images, labels = data["train"]
    steps = len(labels) // BATCH_SIZE
    optimizer = create_optimizer_v2(model, opt="sgd", lr=lr, momentum=0.9, weight_decay=5e-4)
    scheduler, _ = create_scheduler_v2(
        optimizer, sched="cosine", num_epochs=epochs, warmup_epochs=1, warmup_lr=lr / 10, step_on_epochs=False,
        updates_per_epoch=steps,
    )  # fmt: skip
    curve = [{"epoch": 0, "test_error": test_error(model, data)}]
    for epoch in range(epochs):
        model.train()
        start, loss_sum = time.perf_counter(), 0.0
        order = torch.randperm(len(labels), device=images.device)[: steps * BATCH_SIZE]
        for step, index in enumerate(tqdm(order.split(BATCH_SIZE), desc=f"{name} {epoch + 1}/{epochs}")):
            scheduler.step_update(epoch * steps + step)
            with torch.autocast(images.device.type, torch.bfloat16):
                logits = model(normalize(random_crop_flip(images[index])))
                loss = F.cross_entropy(logits, labels[index], label_smoothing=0.1)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            loss_sum += loss.item()
        seconds = time.perf_counter() - start
        curve.append(
            {
                "epoch": epoch + 1,
                "test_error": test_error(model, data),
                "train_loss": round(loss_sum / steps, 4),
                "seconds": round(seconds, 1),
            }
        )
    return curve


def run(seed: int, kind: str, data: dict, args: argparse.Namespace) -> list[dict[str, float]]:
    """Curve of one run, from ``--work-dir`` if it was finished before."""
    stem = args.work_dir / f"seed{seed}_{kind}_{args.images}x{args.epochs if kind != 'donor' else args.donor_epochs}"
    record, weights = stem.with_suffix(".json"), stem.with_suffix(".safetensors")
    if record.is_file():
        return json.loads(record.read_text())
    torch.manual_seed(1000 * seed + ("donor", "scratch", "transplant").index(kind))
    model = timm.create_model(MODEL, **(DONOR_ARGS if kind == "donor" else {})).to(args.device)
    if kind == "transplant":
        donor = load_file(args.work_dir / f"seed{seed}_donor_{args.images}x{args.donor_epochs}.safetensors")
        model.load_state_dict(transplant_trunk(donor, model))
    model = model.to(memory_format=torch.channels_last)
    epochs = args.donor_epochs if kind == "donor" else args.epochs
    lr = args.fine_tune_lr if kind == "transplant" else args.lr
    curve = train(model, data, epochs, lr, f"{kind}, seed {seed}")
    save_file({k: v.contiguous() for k, v in model.state_dict().items()}, weights)
    write_json(record, curve)
    return curve


def plot(rows: list[dict]) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.add_subplot()
    for kind, color in (("scratch", "tab:gray"), ("transplant", "tab:red")):
        for i, seed in enumerate(sorted({row["seed"] for row in rows})):
            curve = [row for row in rows if row["seed"] == seed and row["kind"] == kind]
            label = {"scratch": "from scratch", "transplant": "from a donor's trunk"}[kind] if i == 0 else None
            axes.plot(
                [r["epoch"] for r in curve], [r["test_error"] for r in curve], color=color, marker="o", label=label
            )
    axes.set(xlabel="epoch", ylabel="CIFAR-10 test error, %", title=f"{MODEL}: the same budget, two starts")
    axes.legend()
    axes.grid(alpha=0.3)
    write_figure(RECORD / "plot.png", figure)


def block() -> str:
    """The last epochs' errors."""
    result = json.loads((RECORD / "record.json").read_text())
    schedule, errors = result["configuration"], result["test_error_of_last_epoch"]
    rows = [
        (label, str(epochs), *(f"{error:.2f}%" for error in errors[kind]))
        for kind, label, epochs in (
            ("donor", "(the donor, a plain residual network)", schedule["donor_epochs"]),
            ("scratch", "from scratch", schedule["epochs"]),
            ("transplant", "from the donor's trunk", schedule["epochs"]),
        )
    ]
    return markdown_table(("start", "epochs", *(f"test error, seed {seed}" for seed in result["seeds"])), rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, required=True, help="see benchmarks.cifar.data.load_cifar")
    parser.add_argument("--images", type=int, default=50_000, help="training images, a prefix of the set")
    parser.add_argument("--donor-epochs", type=int, default=6)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--lr", type=float, default=0.1)
    parser.add_argument("--fine-tune-lr", type=float, default=0.03)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--work-dir", type=Path, default=ROOT / "runs" / "transplant")
    args = parser.parse_args()
    try:
        check_recordable(RECORD)
        data = {split: load_cifar(args.data_dir, split) for split in ("train", "test")}
    except (OSError, ValueError) as error:
        parser.error(str(error))
    data["train"] = tuple(tensor[: args.images] for tensor in data["train"])
    data = {split: tuple(tensor.to(args.device) for tensor in tensors) for split, tensors in data.items()}
    args.work_dir.mkdir(parents=True, exist_ok=True)

    rows = [
        {"seed": seed, "kind": kind, **point}
        for seed in args.seeds
        for kind in ("donor", "scratch", "transplant")
        for point in run(seed, kind, data, args)
    ]
    last = {
        kind: [r["test_error"] for r in rows if r["kind"] == kind and r["epoch"] == epochs]
        for kind, epochs in (("donor", args.donor_epochs), ("scratch", args.epochs), ("transplant", args.epochs))
    }
    write_json(
        RECORD / "record.json",
        {
            "command": " ".join([COMMAND, *sys.argv[1:]]).replace(str(args.data_dir), "DIR"),
            **provenance(),
            "dataset": f"CIFAR-10, first {len(data['train'][1])} training images, {len(data['test'][1])} test images",
            "configuration": {
                "batch_size": BATCH_SIZE, "opt": "sgd, Nesterov, momentum 0.9, weight decay 5e-4", "lr": args.lr,
                "fine_tune_lr": args.fine_tune_lr, "sched": "1 warm-up epoch, cosine to 0", "amp": "bfloat16",
                "epochs": args.epochs, "donor_epochs": args.donor_epochs,
            },
            "seeds": args.seeds,
            "test_error_of_last_epoch": last,
        },
    )  # fmt: skip
    write_csv(RECORD / "results.csv", ("seed", "kind", "epoch", "test_error", "train_loss", "seconds"), rows)
    plot(rows)
    write_block(COMMAND, block())
    print(json.dumps(last))


if __name__ == "__main__":
    main()
