"""Do masks earn their place? Attention-56 on CIFAR-10 beside its trunk without masks and beside a deeper trunk.

    python -m benchmarks.cifar.masks_or_not --data-dir DIR [--epochs E] [--seeds S ...] [--arms NAME ...]

From scratch, the trunk is trained for as many epochs and for as much time, and a trunk of as many parameters, that of
Attention-92, for as many epochs, which take it as much time. Then the trained trunk is the donor: it is trained on for
half the epochs, and for as much time, against fresh masks on it (`timm_resattn.transplant_trunk`), where all of the
network learns or the masks, final norm and head alone. Fine-tuning takes half of ``--lr``, half an epoch of warm-up and
no smaller crops.

Runs are kept and go on as in `benchmarks.paper`. Records them in ``--results-dir``, their table in
masks_or_not/results.csv there and, for the results of this repository, in the pages. Differences are paired by seed.
"""

import argparse
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import mean
from typing import Any

from benchmarks.cifar.arguments import recipe_of
from benchmarks.cifar.many import add_arguments, carry_out, check_arguments, folder_of, is_finished
from benchmarks.cifar.recipe import Recipe
from benchmarks.cifar.results import OUTCOME, Results, command_of, errors_by_seed, machines_of, outcome_of, schedule_of
from benchmarks.cifar.run import Run
from benchmarks.common.files import read_csv
from benchmarks.common.pages import write_block
from benchmarks.common.provenance import RESULTS, ROOT
from benchmarks.common.statistics import mean_and_spread, paired_difference
from benchmarks.common.tables import markdown_table

COMMAND = "python -m benchmarks.cifar.masks_or_not"
RECORDS = RESULTS / "cifar"
FILE = Path("masks_or_not") / "results.csv"
FIELDS = ("row", "column", *OUTCOME, "schedule")
TRUNK = {"depths": (0, 0, 0), "closing_units": (5, 5, 5)}  # Attention-56's units, by a plain ResNetV2's names
VERDICTS = {1: "worse", 0: "open", -1: "better"}
MORE_EPOCHS = 1.5  # of the trunk in the time of the network with masks


@dataclass(frozen=True)
class Arm:
    """One way to spend the time.

    Attributes:
        model: timm's name of the network.
        model_kwargs: Its arguments.
        epochs: What the epochs are multiplied by.
        donor: The arm whose weights it begins with; None: from scratch.
        train_only: As the option of `benchmarks.cifar`.
    """

    model: str = "resattn56_cifar"
    model_kwargs: dict[str, Any] = field(default_factory=dict)
    epochs: float = 1.0
    donor: str | None = None
    train_only: str | None = None

    @property
    def begins(self) -> str:
        """Where it begins."""
        return "from the trained trunk" if self.donor else "from scratch"


MASKS, BARE = "Attention-56", "its trunk, as many epochs"
ON_TRUNK = "fresh masks on the trunk"
ARMS = {
    MASKS: Arm(),
    BARE: Arm(model_kwargs=TRUNK),
    "its trunk, as much time": Arm(model_kwargs=TRUNK, epochs=MORE_EPOCHS),
    "Attention-92's trunk, as many parameters, as much time": Arm("resattn92_cifar", {"mask_type": "none"}),
    ON_TRUNK: Arm(epochs=0.5, donor=BARE),
    "fresh masks on the trunk, which stays": Arm(epochs=0.5, donor=BARE, train_only="masks"),
    "the trunk trained on, as many epochs": Arm(model_kwargs=TRUNK, epochs=0.5, donor=BARE),
    "the trunk trained on, as much time": Arm(model_kwargs=TRUNK, epochs=0.5 * MORE_EPOCHS, donor=BARE),
}
GROUPS = {
    reference: [name for name, arm in ARMS.items() if arm.begins == ARMS[reference].begins]
    for reference in (MASKS, ON_TRUNK)
}


def recipe_for(arm: Arm, base: Recipe) -> Recipe:
    """The recipe of an arm."""
    epochs = max(1, round(arm.epochs * base.epochs))
    if arm.donor is None:
        return replace(base, epochs=epochs)
    return replace(base, epochs=epochs, lr=base.lr / 2, warmup_epochs=min(0.5, base.warmup_epochs), crop=0)


def runs_of(names: Sequence[str], base: Recipe, seeds: Sequence[int], work_dir: Path, **rest: Any) -> dict:
    """The run of each arm and seed, by both."""
    runs: dict[tuple[str, int], Run] = {}
    for name, seed in ((name, seed) for seed in seeds for name in names):
        arm, init = ARMS[name], None
        if arm.donor:
            init = folder_of(runs[arm.donor, seed], work_dir) / "model.safetensors"
            init = str(init.relative_to(ROOT) if init.is_relative_to(ROOT) else init)
        recipe = recipe_for(arm, base)
        kwargs = dict(arm.model_kwargs)
        runs[name, seed] = Run(arm.model, recipe, kwargs, seed=seed, init=init, train_only=arm.train_only, **rest)
    return runs


def as_markdown(rows: Sequence[dict[str, str]]) -> str:
    """A table for each way to begin: cost and error of each arm, and its difference to the one with masks."""
    parts = []
    for reference, names in GROUPS.items():
        found = {name: [row for row in rows if row["row"] == name] for name in names}
        errors = {name: errors_by_seed(lines) for name, lines in found.items() if lines}
        if not errors:
            continue
        cells = []
        for name, by_seed in errors.items():
            first = found[name][0]
            difference = paired_difference(errors.get(reference, {}), by_seed) if name != reference else None
            told = f"{difference}: {VERDICTS[difference.sign]}" if difference else ""
            seconds = [float(row["processor_seconds"]) for row in found[name] if row["processor_seconds"]]
            size, minutes = int(first["parameters"]) / 1e6, f"{mean(seconds) / 60:.0f}" if seconds else "-"
            cells.append((name, f"{size:.2f}M", first["epochs"], minutes, mean_and_spread([*by_seed.values()]), told))
        title = f"{ARMS[reference].begins}, against {reference}"
        header = (title, "parameters", "epochs", "processor minutes", "test error, %", "difference")
        parts.append(markdown_table(header, cells))
    if not parts:
        return "Whether masks earn their place has not been measured yet.\n"
    return "\n".join([*parts, f"{machines_of(rows)}; `{command_of(COMMAND, rows)}`\n"])


def block() -> str:
    """The tables of this repository's results."""
    return as_markdown(read_csv(RECORDS / FILE))


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns 0, also after ``--max-seconds``, or the exit status of a run that failed."""
    began = time.monotonic()
    parser = argparse.ArgumentParser(COMMAND, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--arms", nargs="+", choices=tuple(ARMS), default=tuple(ARMS), metavar="NAME",
        help=f"default: all of them: {'; '.join(ARMS)}; a donor is trained too",
    )  # fmt: skip
    add_arguments(parser, "modern", RECORDS)
    args = parser.parse_args(argv)
    try:
        check_arguments(args)
        base = recipe_of(args)
        donors = {ARMS[name].donor for name in args.arms}
        names = [name for name in ARMS if name in args.arms or name in donors]
        runs = runs_of(names, base, args.seeds, args.work_dir, images=args.images, amp=args.amp)
        shared = schedule_of(Run(MASKS, base, images=args.images, amp=args.amp))
        results = Results(args.results_dir / FILE, FIELDS, shared, args.replace)
    except ValueError as error:
        parser.error(str(error))

    status = 0
    for fine_tuned in (False, True):  # a donor's weights are there before others begin with them
        ready = [
            (name, run) for (name, seed), run in runs.items()
            if ((donor := ARMS[name].donor) is None and not fine_tuned)
            or (donor and fine_tuned and is_finished(folder_of(runs[donor, seed], args.work_dir)))
        ]  # fmt: skip

        def done(index: int, folder: Path, ready: list[tuple[str, Run]] = ready) -> None:
            name, run = ready[index]
            outcome = outcome_of(folder, run)
            results.add({"row": name, "column": ARMS[name].begins, "schedule": shared, **outcome})
            print(f"{name}, seed {run.seed}: error {outcome['error']:.2f}%", flush=True)

        status = status or carry_out([run for _, run in ready], args, {"cifar10": args.data_dir}, began, done)
    if args.results_dir.resolve() == RECORDS:
        write_block(COMMAND, block())
    return status


if __name__ == "__main__":
    sys.exit(main())
