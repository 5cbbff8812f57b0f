"""Which map of a mask shows what the network uses? Deletion, insertion and the grid pointing game.

    python -m benchmarks.masks --data-dir DIR [--models NAME ...] [--images N] [--mosaics N] [--seed S]

Every candidate map of every mask, and baselines that know no mask, rank the pixels of the first test images of CIFAR-10
(all classes alike). Deletion: mean probability of the predicted class when the highest-ranked pixels are blurred.
Insertion: when all but them are. Mosaics: the share of the map of a class that lies on the image of that class, in
2x2 mosaics of four classes.

Writes benchmarks/results/masks/record.json and the table of docs/masks.md.
"""

import argparse
import json
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

import timm
import torch
from tqdm import tqdm

from benchmarks.cifar.data import load_cifar, normalize
from benchmarks.common.files import write_json
from benchmarks.common.pages import write_block
from benchmarks.common.provenance import RESULTS, check_recordable, provenance
from benchmarks.common.tables import markdown_table
from benchmarks.masks.maps import BASELINES, baselines, maps, reference_means
from benchmarks.masks.scores import FRACTIONS, deletion_and_insertion, mosaics, share_in_cell
from timm_resattn import optimize_for_inference

COMMAND = "python -m benchmarks.masks"
RECORD = RESULTS / "masks" / "record.json"
BATCH = 100
SURE = 0.9  # least probability of an image's class, for mosaics


def measure(name: str, args: argparse.Namespace) -> list[dict[str, Any]]:
    """A row for each candidate and module of a network."""
    model = timm.create_model(name, pretrained=True).eval().requires_grad_(False)
    fast = optimize_for_inference(model, torch.bfloat16, compile=False)
    train, _ = load_cifar(args.data_dir, "train")
    test, _ = load_cifar(args.data_dir, "test")
    images = normalize(test[: args.images])
    reference = reference_means(model, normalize(train[: args.reference]))

    scores: dict[tuple[str, str], list[torch.Tensor]] = defaultdict(list)
    shares: dict[tuple[str, str], list[torch.Tensor]] = defaultdict(list)
    with torch.no_grad():
        probabilities = torch.cat([model(batch).softmax(1) for batch in images.split(BATCH)])
    confidence, predicted = probabilities.max(1)
    batches = zip(images.split(BATCH), predicted.split(BATCH), strict=True)
    for batch, classes in tqdm(batches, desc=f"{name}, images", total=-(-len(images) // BATCH)):
        for candidate, module, heat in (
            *baselines(model, batch, classes, args.seed),
            *maps(model, batch, classes, reference),
        ):
            scores[candidate, module].append(torch.stack(deletion_and_insertion(fast, batch, classes, heat), 1))

    sure = confidence >= SURE
    pictures, cells = mosaics(images[sure], predicted[sure], args.mosaics, args.seed)
    large = {module: mean.repeat(1, 1, 2, 2) for module, mean in reference.items()}
    for cell in tqdm(range(4), desc=f"{name}, mosaics"):
        for candidate, module, heat in (
            *baselines(model, pictures, cells[:, cell], args.seed),
            *maps(model, pictures, cells[:, cell], large),
        ):
            shares[candidate, module].append(share_in_cell(heat, cell, pictures.shape[2:]))

    rows = []
    for (candidate, module), parts in scores.items():
        deleted, inserted = torch.cat(parts).unbind(1)
        share = torch.stack(shares[candidate, module]).mean(0)
        row: dict[str, Any] = dict(model=name, candidate=candidate, module=module)
        for key, values in (
            ("deletion", deleted),
            ("insertion", inserted),
            ("difference", inserted - deleted),
            ("share", share),
        ):
            row[key] = round(values.mean().item(), 4)
            row[f"{key}_se"] = round(values.std().item() / len(values) ** 0.5, 4)
        rows.append(row)
    return rows


def table(rows: list[dict[str, Any]]) -> str:
    """Insertion minus deletion for the masks of each stage, best mean first, and the shares in the cell."""
    groups: dict[tuple[str, str], dict[str, list[dict[str, Any]]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        stage = row["module"].split(".")[1] if row["module"] else ""  # none: it knows no mask
        groups[row["model"], row["candidate"]][stage].append(row)
    stages = sorted({stage for by_stage in groups.values() for stage in by_stage if stage})

    def mean(group: list[dict[str, Any]], key: str) -> float:
        return sum(row[key] for row in group) / len(group)

    def rank(item: tuple[tuple[str, str], dict[str, list[dict[str, Any]]]]) -> tuple[str, float]:
        return item[0][0], -mean([row for group in item[1].values() for row in group], "difference")

    lines = []
    for (model, candidate), by_stage in sorted(groups.items(), key=rank):
        of_stages = [by_stage.get(stage) or by_stage.get("", []) for stage in stages]
        differences = [
            f"{mean(group, 'difference'):+.2f} ± {1.96 * mean(group, 'difference_se'):.2f}" if group else ""
            for group in of_stages
        ]
        shares = " / ".join(f"{mean(group, 'share'):.0%}" for group in of_stages if group)
        lines.append((f"`{model}`", f"*{candidate}*" if candidate in BASELINES else candidate, *differences, shares))
    header = ("network", "map", *(f"stage {int(stage) + 1}" for stage in stages), "in its cell")
    return markdown_table(header, lines, text_columns=2)


def block() -> str:
    """This repository's results."""
    record = json.loads(RECORD.read_text())
    return (
        f"[`{record['command']}`](benchmarks/results/masks): {record['images']} test images of CIFAR-10, "
        f"{record['mosaics']} mosaics; insertion minus deletion, mean over the masks of a stage, ± 1.96 standard "
        f"errors of one mask's mean over images; baselines, which know no value of a mask, in italics.\n\n"
        f"{table(record['rows'])}"
    )


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    parser = argparse.ArgumentParser(COMMAND, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, required=True, metavar="DIR", help="CIFAR-10, as benchmarks.cifar's")
    parser.add_argument("--models", nargs="+", default=["resattn56_cifar", "resattn92_cifar"], metavar="NAME")
    parser.add_argument("--images", type=int, default=500, metavar="N", help="default: 500")
    parser.add_argument("--mosaics", type=int, default=100, metavar="N", help="default: 100")
    parser.add_argument("--reference", type=int, default=2000, metavar="N", help="training images; default: 2000")
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="default: 0")
    parser.add_argument("--out", type=Path, default=RECORD, metavar="FILE", help="default: the repository's record")
    args = parser.parse_args(argv)
    try:
        check_recordable(args.out)
        origin = provenance()
        rows = [row for name in args.models for row in measure(name, args)]
    except (OSError, RuntimeError, ValueError) as error:
        parser.error(str(error))
    words = sys.argv[1:] if argv is None else argv
    settings = dict(
        images=args.images, mosaics=args.mosaics, reference=args.reference, seed=args.seed, fractions=FRACTIONS
    )
    command = " ".join([COMMAND, *("DIR" if word == str(args.data_dir) else word for word in words)])
    record = dict(command=command, **origin, **settings, rows=rows)
    write_json(args.out, record)
    print(table(rows))
    if args.out == RECORD:
        write_block(COMMAND, block())
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
