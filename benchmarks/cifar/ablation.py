"""What each part of the modern recipe is worth: the recipe without it, or with one more, on held-out training images.

    python -m benchmarks.cifar.ablation --data-dir DIR [--model NAME] [--val-images N] [--epochs E] [--seeds S ...]
                                  [--parts NAME ...]

The test set is not read. Runs are kept and go on as in `benchmarks.paper`. Records the runs in
``--results-dir``, their table in recipe_parts/results.csv there and, for the results of this repository, in the pages.
"""

import argparse
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.cifar.arguments import check_least, recipe_of
from benchmarks.cifar.many import add_arguments, carry_out, check_arguments
from benchmarks.cifar.recipe import RECIPES, Recipe
from benchmarks.cifar.results import OUTCOME, Results, command_of, errors_by_seed, machines_of, outcome_of, schedule_of
from benchmarks.cifar.run import Run
from benchmarks.common.files import read_csv
from benchmarks.common.pages import write_block
from benchmarks.common.provenance import RESULTS
from benchmarks.common.statistics import mean_and_spread, paired_difference
from benchmarks.common.tables import markdown_table

COMMAND = "python -m benchmarks.cifar.ablation"
RECORDS = RESULTS / "cifar"
FILE = Path("recipe_parts") / "results.csv"
FIELDS = ("row", "column", *OUTCOME, "schedule")
WHOLE = "the modern recipe"
PARTS: dict[str, dict[str, Any]] = {
    WHOLE: {},
    "Nesterov SGD in place of Muon": {"opt": "sgd", "lr": 0.1, "weight_decay": 5e-4, "fallback_lr_scale": 1.0},
    "without label smoothing": {"smoothing": 0.0},
    "without warm-up": {"warmup_epochs": 0.0},
    "decay of norms and biases": {"decay_all": True},
    "the full rate for norms and biases": {"fallback_lr_scale": 1.0},
    "cosine": {"sched": "cosine"},
    "without cutout": {"cutout": 0},
    "without smaller crops": {"crop": 0},
    "all images in each epoch": {"prune": 0.0},
    "mixup 0.2": {"mixup": 0.2, "prune": 0.0},
    "mixup 0.2 or CutMix 1": {"mixup": 0.2, "cutmix": 1.0, "prune": 0.0},
}
PAPER = "the paper's recipe"


def recipes_of(base: Recipe) -> dict[str, Recipe]:
    """The recipe with each of its parts changed, and the paper's, all for as many epochs."""
    parts = {name: replace(base, **changes) for name, changes in PARTS.items()}
    return parts | {PAPER: replace(RECIPES["paper"], epochs=base.epochs)}


def as_markdown(rows: Sequence[dict[str, str]]) -> str:
    """Error of each part's runs, paired by seed with those of the whole recipe, and of the weights' moving average."""
    if not rows:
        return "What the parts of the modern recipe are worth has not been measured yet.\n"
    first = rows[0]
    found = {name: [row for row in rows if row["row"] == name] for name in dict.fromkeys(row["row"] for row in rows)}
    errors = {name: errors_by_seed(lines) for name, lines in found.items()}
    cells = []
    for name, lines in found.items():
        difference = paired_difference(errors.get(WHOLE, {}), errors[name]) if name != WHOLE else None
        averages = [float(row["error_ema"]) for row in lines if row["error_ema"]]
        average = mean_and_spread(averages) if averages else ""
        cells.append((name, mean_and_spread([*errors[name].values()]), str(difference or ""), average))
    table = markdown_table(("recipe", "error, %", f"against {WHOLE}", "moving average, %"), cells)
    command = command_of(f"{COMMAND} --model {first['column']}", rows)
    return f"{table}\nError on {first['held_out']}; {machines_of(rows)}; `{command}`\n"


def block() -> str:
    """The table of this repository's results."""
    return as_markdown(read_csv(RECORDS / FILE))


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns 0, also after ``--max-seconds``, or the exit status of a run that failed."""
    began = time.monotonic()
    parser = argparse.ArgumentParser(
        COMMAND, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )  # fmt: skip
    parser.add_argument("--model", default="resattn56_cifar", metavar="NAME", help="default: resattn56_cifar")
    parser.add_argument(
        "--parts", nargs="+", choices=(*PARTS, PAPER), default=(*PARTS, PAPER), metavar="NAME",
        help=f"default: all of them: {', '.join((*PARTS, PAPER))}",
    )  # fmt: skip
    parser.add_argument("--val-images", type=int, default=5000, metavar="N", help="default: 5000")
    add_arguments(parser, "modern", RECORDS)
    args = parser.parse_args(argv)
    try:
        check_arguments(args)
        check_least("--val-images", args.val_images, 1)
        base = recipe_of(args)
        recipes = {name: recipe for name, recipe in recipes_of(base).items() if name in args.parts}
        names = [*recipes] * len(args.seeds)
        runs = [
            Run(args.model, recipe, images=args.images, val_images=args.val_images, seed=seed, amp=args.amp)
            for seed in args.seeds
            for recipe in recipes.values()
        ]
        shared = schedule_of(Run(args.model, base, images=args.images, val_images=args.val_images, amp=args.amp))
        results = Results(args.results_dir / FILE, FIELDS, shared, args.replace)
    except ValueError as error:
        parser.error(str(error))

    def done(index: int, folder: Path) -> None:
        row = {"row": names[index], "column": args.model, "schedule": shared, **outcome_of(folder, runs[index])}
        results.add(row)
        print(f"{names[index]}, seed {row['seed']}: error {row['error']:.2f}%", flush=True)

    status = carry_out(runs, args, {"cifar10": args.data_dir}, began, done)
    if args.results_dir.resolve() == RECORDS:
        write_block(COMMAND, block())
    return status


if __name__ == "__main__":
    sys.exit(main())
