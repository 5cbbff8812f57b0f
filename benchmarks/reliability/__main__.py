"""How much was tried, and did it hold?

    python -m benchmarks.reliability [--part fuzz|weights|writers|processes|numerics|mutants ...] [--cases N]

Writes the outcomes by kind of each part to ``benchmarks/results/reliability.json``, beside those of the other parts,
and renews the tables of the pages. Each of several parts runs in a process of its own. The exit status is 1 if
something crashed or was wrong; the record says what.
"""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch

from benchmarks.common.files import write_json
from benchmarks.common.pages import write_block
from benchmarks.common.provenance import RESULTS, check_recordable, provenance
from benchmarks.common.tables import markdown_table
from benchmarks.reliability import fuzz, mutants, numerics, processes, weights, writers
from benchmarks.reliability.tally import COLUMNS, Tally

COMMAND = "python -m benchmarks.reliability"
RECORD = RESULTS / "reliability.json"
PARTS = {
    "fuzz": fuzz,
    "weights": weights,
    "writers": writers,
    "processes": processes,
    "numerics": numerics,
    "mutants": mutants,
}
TITLES = {
    "fuzz": "Networks under random options",
    "weights": "Damaged and hostile files",
    "writers": "Interrupted writers",
    "processes": "Many processes",
    "numerics": "Precision",
    "mutants": "Broken lines",
}


def read_record(path: Path = RECORD) -> dict[str, Any]:
    """What each part recorded; nothing of those that have not been run."""
    return json.loads(path.read_text()) if path.exists() else {}


def block(path: Path = RECORD) -> str:
    """The tables of the record."""
    record = read_record(path)
    rows = [
        (TITLES[part], kind, *(str(counts[column]) for column in COLUMNS))
        for part in PARTS
        for kind, counts in record.get(part, {}).get("kinds", {}).items()
    ]
    text = markdown_table(("part", "kind", *COLUMNS), rows, text_columns=2)
    measured = record.get("numerics", {}).get("measured", {})
    if measured.get("precisions"):
        text += f"\nOn {measured['images']} test images of CIFAR-10, beside single precision:\n\n"
        header = ("weights", "precision", "other classes", "bound", "distance of logits", "bound")
        text += markdown_table(
            header,
            [
                (f"`{name}`", precision, f"{others:g}%", f"{numerics.BOUNDS[precision][0]:g}%", f"{distance:g}",
                 f"{numerics.BOUNDS[precision][1]:g}")
                for name, found in measured["precisions"].items()
                for precision, (others, distance) in found.items()
            ],
            text_columns=2,
        )  # fmt: skip
    if measured.get("largest"):
        text += "\nLargest magnitudes with random weights, on noise:\n\n"
        columns = ("untouched", "calibrated", "training", "gradient")
        header = ("network", "activation, eval, untouched statistics", "eval, calibrated", "training", "gradient")
        text += markdown_table(
            header,
            [(f"`{name}`", *(f"{found[key]:.2g}" for key in columns)) for name, found in measured["largest"].items()],
        )
    return text


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    parser = argparse.ArgumentParser(COMMAND, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", nargs="+", choices=tuple(PARTS), default=list(PARTS), metavar="PART")
    parser.add_argument("--cases", type=int, metavar="N", help="how many (default: the part's own number)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--data-dir", type=Path, help="CIFAR-10, for numerics; see benchmarks.cifar.data.load_cifar")
    parser.add_argument("--out", type=Path, default=RECORD, metavar="FILE", help=f"default: {RECORD.name}")
    args = parser.parse_args(argv)
    if args.cases is not None and args.cases < 1:
        parser.error(f"--cases must be at least 1; got {args.cases}")
    if args.out == RECORD and "numerics" in args.part and not args.data_dir:
        parser.error("give --data-dir DIR, for numerics, or --out FILE: the record holds what needs CIFAR-10")
    try:
        check_recordable(args.out.parent)
    except ValueError as error:
        parser.error(str(error))
    torch.set_num_threads(1)  # so that results come again bit for bit, and children can be forked
    if len(args.part) > 1:  # what autograd starts in one part must not be there when another forks
        given = sys.argv[1:] if argv is None else argv
        calls = [[sys.executable, "-m", "benchmarks.reliability", *given, "--part", part] for part in args.part]
        codes = [subprocess.run(call, check=False).returncode for call in calls]
        return int(any(codes))
    [part] = args.part
    tally, began = Tally(), time.monotonic()
    count = args.cases or PARTS[part].CASES
    options = {"data_dir": args.data_dir} if part == "numerics" and args.data_dir else {}
    origin = provenance(("hypothesis", "safetensors"))
    measured = PARTS[part].run(tally, count, args.seed, **options)
    entry = {
        "command": f"{COMMAND} --part {part} --cases {count} --seed {args.seed}" + " --data-dir DIR" * bool(options),
        **origin,
        "seed": args.seed,
        "seconds": round(time.monotonic() - began, 1),
        "kinds": tally.kinds,
        "failures": tally.failures,
        "measured": measured,
    }
    write_json(args.out, {**read_record(args.out), part: entry})
    print(markdown_table(("kind", *COLUMNS), [(k, *map(str, c.values())) for k, c in tally.kinds.items()]), end="")
    for failure in tally.failures:
        print(f"{failure['kind']}: {failure['outcome']}: {failure['why']}\n    {failure['tried']}", file=sys.stderr)
    if args.out == RECORD:
        write_block(COMMAND, block())
    return int(bool(tally.failures))


if __name__ == "__main__":
    sys.exit(main())
