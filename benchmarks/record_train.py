"""Keep what a run of timm's train.py did: its log, its summary.csv and a JSON with the circumstances.

    python -m benchmarks.record_train RUN_DIR LOG NAME --command "python train.py ..." [--note TEXT] [--commit REV]

RUN_DIR is train.py's output folder (args.yaml, summary.csv), LOG what it printed. Writes `NAME.json`, `NAME.csv` and
`NAME.log` to benchmarks/results/. The accuracy recorded is that of the last epoch, never the best one.
"""

import argparse
import csv
import shutil
from pathlib import Path

import yaml

from benchmarks.provenance import ROOT, provenance, write_json

SCHEDULE = (
    "model", "epochs", "batch_size", "opt", "lr", "momentum", "weight_decay", "sched", "warmup_epochs", "warmup_lr",
    "scale", "ratio", "hflip", "color_jitter", "smoothing", "amp", "amp_dtype", "channels_last", "resume",
)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run_dir", type=Path)
    parser.add_argument("log", type=Path)
    parser.add_argument("name")
    parser.add_argument("--command", required=True, help="the exact command, as a reader would type it")
    parser.add_argument("--commit", help="commit of the code that ran, if not the one checked out now")
    parser.add_argument("--note", default="", help="circumstances worth knowing, e.g. what else the machine did")
    args = parser.parse_args()
    for path in (args.run_dir / "args.yaml", args.run_dir / "summary.csv", args.log):
        if not path.is_file():
            parser.error(f"{path} is not there: RUN_DIR must be train.py's output folder and LOG what it printed")

    run_args = yaml.safe_load((args.run_dir / "args.yaml").read_text())
    with (args.run_dir / "summary.csv").open(newline="") as file:
        epochs = [{key: float(value) for key, value in row.items()} for row in csv.DictReader(file)]
    last = epochs[-1]
    content = {
        "command": args.command,
        **provenance(),
        "seed": run_args["seed"],
        "schedule": {key: run_args[key] for key in SCHEDULE},
        "note": args.note,
        "last_epoch": int(last["epoch"]),
        "top1": last["eval_top1"],
        "top5": last["eval_top5"],
        "epochs": epochs,
    }
    if args.commit:
        content["commit"] = args.commit
    results = ROOT / "benchmarks" / "results"
    write_json(results / f"{args.name}.json", content)
    shutil.copyfile(args.run_dir / "summary.csv", results / f"{args.name}.csv")
    shutil.copyfile(args.log, results / f"{args.name}.log")
    print(f"{args.name}: epoch {content['last_epoch']}, top-1 {content['top1']}%")


if __name__ == "__main__":
    main()
