"""What training only the masks costs, against training all: trainable parameters, memory, time of a step.

    python -m benchmarks.speed.adapter [--device cpu|cuda] [--batch-size B] [--img-size S] [--rounds N] [--only memory]

`resattn50` with masks, final norm and head trained (`timm_resattn.train_masks_only`), the same as a whole, and its
donor, ResNetV2-50, as a whole; SGD with momentum, float32 and autocast to bfloat16.

* trainable: parameters with gradients, each of which also has a gradient and a momentum: twice its size;
* saved: what autograd keeps of the forward pass for backward, each storage once: exact, the same on any machine;
* step: median time of forward, backward and update, the contenders in turn in each of ``--rounds``.

Writes benchmarks/results/speed/adapter/record.json (on a GPU adapter_cuda) and the pages' table; ``--only memory``
times nothing and prints.
"""

import argparse
import json
import sys
from statistics import median
from typing import Any

import torch

from benchmarks.common.files import write_json
from benchmarks.common.pages import write_block
from benchmarks.common.provenance import check_recordable, provenance
from benchmarks.common.tables import markdown_table
from benchmarks.speed.contenders import Contender, TrainingStep, create_network
from benchmarks.speed.probe import saved_for_backward
from benchmarks.speed.report import RECORDS, circumstances
from benchmarks.speed.timing import interleaved
from timm_resattn import train_masks_only

COMMAND = "python -m benchmarks.speed.adapter"
TRAINED = (("resattn50", "masks only"), ("resattn50", "all"), ("resnetv2_50", "all"))
DTYPES = ("float32", "autocast")
MIB = 2**20


def step_of(network: str, trained: str, dtype: str, images: torch.Tensor) -> TrainingStep:
    """A training step of the network, of all of it or of its masks only."""
    model = create_network(network).to(images.device)
    return TrainingStep(
        Contender(network, dtype=dtype), train_masks_only(model) if trained == "masks only" else model, images
    )


def rows_of(batch_size: int, img_size: int, device: str, rounds: int) -> list[dict[str, Any]]:
    """A row for each contender; without ``step_seconds`` if there are no rounds."""
    images = torch.randn(batch_size, 3, img_size, img_size, device=device)
    rows, steps = [], {}
    for dtype in DTYPES:
        for network, trained in TRAINED:
            step = step_of(network, trained, dtype, images)
            own = (*step.model.parameters(), *step.model.buffers(), step.images, step.labels)
            trainable = sum(parameter.numel() for parameter in step.model.parameters() if parameter.requires_grad)
            saved = round(saved_for_backward(step.loss, own) / MIB, 1)
            rows.append(
                dict(network=network, trained=trained, dtype=dtype, trainable_parameters=trainable, saved_mib=saved)
            )
            if rounds:
                steps[len(rows) - 1] = step
    for index, times in (interleaved(steps, rounds) if rounds else {}).items():
        rows[index]["step_seconds"] = [round(time, 4) for time in times]
    return rows


def table(rows: list[dict[str, Any]]) -> str:
    """The rows, shares of a whole `resattn50` of the same type in brackets."""
    wholes = {row["dtype"]: row for row in rows if (row["network"], row["trained"]) == TRAINED[1]}
    body = []
    for row in rows:
        whole = wholes[row["dtype"]]
        cells = [f"{row['trainable_parameters'] / 1e6:.1f}M"]
        cells.append(f"{row['saved_mib']:,.0f} ({row['saved_mib'] / whole['saved_mib']:.0%})")
        if "step_seconds" in row:
            seconds, reference = median(row["step_seconds"]), median(whole["step_seconds"])
            cells.append(f"{1000 * seconds:,.0f} ({seconds / reference:.0%})")
        body.append((f"`{row['network']}`, {row['trained']}", row["dtype"], *cells))
    header = ("trained", "type", "trainable", "saved for backward, MiB", "step, ms")
    return markdown_table(header[: len(body[0])], body, text_columns=2)


def block() -> str:
    """This repository's results."""
    blocks = []
    for folder in (RECORDS / "adapter", RECORDS / "adapter_cuda"):
        if (folder / "record.json").is_file():
            record = json.loads((folder / "record.json").read_text())
            blocks.append(f"{circumstances(folder)}\n")
            blocks.append(f"Batch {record['batch_size']}, {record['img_size']}x{record['img_size']}.\n")
            blocks.append(table(record["rows"]))
    return "\n".join(blocks)


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    parser = argparse.ArgumentParser(COMMAND, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="default: cpu")
    parser.add_argument("--batch-size", type=int, metavar="B", help="default: 16, on a GPU 128")
    parser.add_argument("--img-size", type=int, default=224, metavar="S", help="default: 224")
    parser.add_argument("--rounds", type=int, default=5, metavar="N", help="default: 5")
    parser.add_argument("--only", choices=("memory",), help="print parameters and memory, record nothing")
    args = parser.parse_args(argv)
    if args.device == "cuda" and not torch.cuda.is_available():
        parser.error("--device cuda: no GPU is there")
    batch_size = {"cpu": 16, "cuda": 128}[args.device] if args.batch_size is None else args.batch_size
    folder = RECORDS / ("adapter_cuda" if args.device == "cuda" else "adapter")
    try:
        for name, value in (("--batch-size", batch_size), ("--img-size", args.img_size), ("--rounds", args.rounds)):
            if value < 1:
                raise ValueError(f"{name} must be at least 1; got {value}")
        if not args.only:
            check_recordable(folder)
    except ValueError as error:
        parser.error(str(error))
    origin = provenance()
    rows = rows_of(batch_size, args.img_size, args.device, 0 if args.only else args.rounds)
    print(table(rows))
    if args.only:
        return 0
    words = sys.argv[1:] if argv is None else argv
    settings = dict(batch_size=batch_size, img_size=args.img_size, rounds=args.rounds)
    write_json(folder / "record.json", dict(command=" ".join([COMMAND, *words]), **origin, **settings, rows=rows))
    write_block(COMMAND, block())
    return 0


if __name__ == "__main__":
    sys.exit(main())
