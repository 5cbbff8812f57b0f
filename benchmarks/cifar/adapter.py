"""Masks as an adapter: what do masks on a trained trunk learn? CIFAR-10, against training the trunk on.

    python -m benchmarks.cifar.adapter --data-dir DIR [--images N] [--donor-epochs E] [--epochs E] [--seeds S ...]

For each seed a plain pre-activation residual network (three units a stage) is trained as the donor. `resattn56_cifar`
with p = 0 has that trunk, unit by unit: the donor's is transplanted into it and it is trained with its masks and head
alone (``masks``) and as a whole (``all``); the donor is trained on (``donor``). All three take ``--epochs`` epochs, and
once more as many updates as fit into the time of ``all``, so that each has a result after equal epochs and after equal
time; time is that of the process on the processor, which other processes disturb little.

The schedule is the same throughout (Nesterov SGD, weight decay 5e-4, half an epoch of warm-up, cosine to zero, crop and
flip, label smoothing 0.1, bfloat16). The donor and the fresh masks learn at ``--lr``, what was trained before at
``--fine-tune-lr``. Each finished run is kept in ``--work-dir`` and not repeated. Writes
benchmarks/results/cifar/adapter.json and the pages' table; errors are those of the last update, on the test images.
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
from timm.scheduler import create_scheduler_v2

from benchmarks.cifar.data import load_cifar, normalize, random_crop_flip
from benchmarks.cifar.trainer import error_percent
from benchmarks.common.files import write_json
from benchmarks.common.pages import write_block
from benchmarks.common.provenance import RESULTS, ROOT, check_recordable, provenance
from benchmarks.common.tables import markdown_table
from timm_resattn import transplant_trunk
from timm_resattn.mask_tuning import train_masks_only

COMMAND = "python -m benchmarks.cifar.adapter"
RECORD = RESULTS / "cifar" / "adapter.json"
MODEL = "resattn56_cifar"
MEMBER_ARGS = dict(depths=(1, 1, 1), closing_units=(0, 0, 0), pre_units=0)
DONOR_ARGS = dict(depths=(0, 0, 0), closing_units=(2, 2, 2), mask_type="none")
BATCH_SIZE = 128
ARMS = ("masks", "all", "donor")


def create(arm: str, start: dict[str, torch.Tensor] | None) -> torch.nn.Module:
    """The network of an arm: with the donor's weights ``start``, or freshly drawn."""
    if arm == "donor":
        model = timm.create_model(MODEL, **DONOR_ARGS)
        if start is not None:
            model.load_state_dict(start)
        return model
    model = timm.create_model(MODEL, **MEMBER_ARGS)
    model.load_state_dict(transplant_trunk(start, model))
    return train_masks_only(model) if arm == "masks" else model


def optimizer_of(model: torch.nn.Module, lr: float, fine_tune_lr: float, trained: bool) -> torch.optim.Optimizer:
    """SGD; the parameters of masks, and all if the network is not ``trained``, at ``lr``, others at the lower rate."""
    rates = {lr: [], fine_tune_lr: []}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            rates[fine_tune_lr if trained and ".mask." not in name else lr].append(parameter)
    groups = [dict(params=params, lr=rate) for rate, params in rates.items() if params]
    return torch.optim.SGD(groups, momentum=0.9, nesterov=True, weight_decay=5e-4)


def train(model: torch.nn.Module, data: dict, updates: int, optimizer: torch.optim.Optimizer, seed: int) -> dict:
    """Train in place for so many updates; test error, mean loss and processor time."""
    images, labels = data["train"]
    steps = len(labels) // BATCH_SIZE
    scheduler, _ = create_scheduler_v2(
        optimizer, sched="cosine", num_epochs=1, warmup_epochs=steps / 2 / updates, warmup_lr=1e-3,
        step_on_epochs=False, updates_per_epoch=updates,
    )  # fmt: skip
    torch.manual_seed(seed)
    model = model.to(memory_format=torch.channels_last).train()
    began, loss_sum, order = time.process_time(), 0.0, ()
    for update in range(updates):
        if update % steps == 0:
            order = torch.randperm(len(labels))[: steps * BATCH_SIZE].split(BATCH_SIZE)
        index = order[update % steps]
        scheduler.step_update(update)
        with torch.autocast("cpu", torch.bfloat16):
            logits = model(normalize(random_crop_flip(images[index])))
            loss = F.cross_entropy(logits, labels[index], label_smoothing=0.1)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        loss_sum += loss.item()
    seconds = time.process_time() - began
    with torch.autocast("cpu", torch.bfloat16):
        error = error_percent(model, *data["test"])
    return {
        "updates": updates,
        "trainable_parameters": sum(p.numel() for p in model.parameters() if p.requires_grad),
        "train_loss": round(loss_sum / updates, 4),
        "processor_seconds": round(seconds, 1),
        "test_error": round(error, 2),
    }


class Runs:
    """The runs of one seed, each done once and kept in a folder."""

    def __init__(self, seed: int, data: dict, args: argparse.Namespace) -> None:
        self.seed, self.data, self.args = seed, data, args
        self.steps = len(data["train"][1]) // BATCH_SIZE

    def run(self, arm: str, updates: int, trained: bool = True) -> dict:
        """Result of an arm, ``{"updates": ..., "test_error": ...}``; the donor's first training if not ``trained``."""
        args = self.args
        name = f"{args.images}_seed{self.seed}_{arm if trained else 'start'}_{updates}"
        record = args.work_dir / f"{name}.json"
        if record.is_file():
            return json.loads(record.read_text())
        torch.manual_seed(100 + self.seed)
        start = load_file(self.start_path()) if trained else None
        model = create(arm, start)
        result = train(model, self.data, updates, optimizer_of(model, args.lr, args.fine_tune_lr, trained), self.seed)
        if not trained:
            save_file({k: v.contiguous() for k, v in model.state_dict().items()}, self.start_path())
        write_json(record, {"seed": self.seed, **result})
        print(name, json.dumps(result), flush=True)
        return json.loads(record.read_text())

    def start_path(self) -> Path:
        return self.args.work_dir / f"{self.args.images}_seed{self.seed}_{self.args.donor_epochs}.safetensors"

    def all(self) -> dict:
        """The donor's first training, and each arm after equal epochs and after equal time."""
        found = {"start": self.run("donor", self.args.donor_epochs * self.steps, trained=False)}
        updates = self.args.epochs * self.steps
        found["equal_epochs"] = {arm: self.run(arm, updates) for arm in ARMS}
        rates = {arm: result["processor_seconds"] / updates for arm, result in found["equal_epochs"].items()}
        found["equal_time"] = {arm: self.run(arm, round(updates * rates["all"] / rates[arm])) for arm in ARMS}
        return found


def as_markdown(record: dict) -> str:
    """The table of a record: test errors of all seeds after equal epochs and after equal time."""
    found = record["by_seed"].values()

    def cells(kind: str, arm: str) -> tuple[str, str]:
        results = [seed[kind][arm] for seed in found]
        errors = ", ".join(f"{result['test_error']:.2f}%" for result in results)
        return errors, ", ".join(str(result["updates"]) for result in results)

    labels = {"masks": "masks, final norm and head", "all": "all of it", "donor": "the donor, without masks"}
    rows = [(label, cells("equal_epochs", arm)[0], *cells("equal_time", arm)) for arm, label in labels.items()]
    start = ", ".join(f"{seed['start']['test_error']:.2f}%" for seed in found)
    header = ("trained on", "error, equal epochs", "error, equal time", "updates then")
    return f"Test errors by seed; the donors' before: {start}.\n\n" + markdown_table(header, rows)


def block() -> str:
    """This repository's result."""
    return as_markdown(json.loads(RECORD.read_text())) if RECORD.is_file() else ""


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(COMMAND, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, required=True, help="see benchmarks.cifar.data.load_cifar")
    parser.add_argument("--images", type=int, default=10_000, help="training images, a prefix of the set")
    parser.add_argument("--donor-epochs", type=int, default=6)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--lr", type=float, default=0.1)
    parser.add_argument("--fine-tune-lr", type=float, default=0.03)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--work-dir", type=Path, default=ROOT / "runs" / "adapter")
    parser.add_argument("--out", type=Path, default=RECORD, help="default: benchmarks/results/cifar/adapter.json")
    args = parser.parse_args(argv)
    try:
        check_recordable(args.out)
        data = {split: load_cifar(args.data_dir, split) for split in ("train", "test")}
    except (OSError, ValueError) as error:
        parser.error(str(error))
    data["train"] = tuple(tensor[: args.images] for tensor in data["train"])
    args.work_dir.mkdir(parents=True, exist_ok=True)
    command = " ".join([COMMAND, *(sys.argv[1:] if argv is None else argv)]).replace(str(args.data_dir), "DIR")
    origin = provenance()  # of the code that runs, before it can change
    found = {str(seed): Runs(seed, data, args).all() for seed in args.seeds}
    write_json(
        args.out,
        {
            "command": command,
            **origin,
            "dataset": f"CIFAR-10, first {len(data['train'][1])} training images, {len(data['test'][1])} test images",
            "schedule": {
                "batch_size": BATCH_SIZE, "lr": args.lr, "fine_tune_lr": args.fine_tune_lr,
                "donor_epochs": args.donor_epochs, "epochs": args.epochs,
            },
            "by_seed": found,
        },
    )  # fmt: skip
    if args.out == RECORD:
        write_block(COMMAND, block())
    print(as_markdown(json.loads(args.out.read_text())))


if __name__ == "__main__":
    main()
