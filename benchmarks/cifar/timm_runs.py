"""Keep what a run of timm's train.py did: its log, its summary.csv and a JSON with the circumstances.

    python -m benchmarks.cifar.timm_runs RUN_DIR LOG NAME --command "python train.py ..." [--note TEXT] [--commit REV]

RUN_DIR is train.py's output folder (args.yaml, summary.csv), LOG what it printed. Writes result.json, summary.csv and
log.txt to benchmarks/results/train/NAME/ and the pages' table of all such runs. The accuracy recorded is that of the
last epoch, never the best one.
"""

import argparse
import csv
import json
import shutil
from pathlib import Path

import yaml

from benchmarks.common.files import save_atomically, write_json
from benchmarks.common.pages import write_block
from benchmarks.common.provenance import RESULTS, ROOT, check_recordable, provenance
from benchmarks.common.tables import markdown_table

COMMAND = "python -m benchmarks.cifar.timm_runs"
RECORDS = RESULTS / "train"

SCHEDULE = (
    "model", "epochs", "batch_size", "opt", "lr", "momentum", "weight_decay", "sched", "warmup_epochs", "warmup_lr",
    "scale", "ratio", "hflip", "color_jitter", "smoothing", "amp", "amp_dtype", "channels_last", "resume",
)  # fmt: skip


def block() -> str:
    """Table of all recorded runs."""
    rows = []
    for path in sorted(RECORDS.glob("*/result.json")):
        run, folder = json.loads(path.read_text()), path.parent
        schedule, where = run["schedule"], folder.relative_to(ROOT).as_posix()
        cells = f"`{schedule['model']}`", str(schedule["epochs"]), f"{run['top1']:.2f}%", str(run["seed"])
        rows.append((f"[{folder.name}]({where})", *cells))
    return markdown_table(("run", "model", "epochs", "top-1, last epoch", "seed"), rows, text_columns=2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run_dir", type=Path)
    parser.add_argument("log", type=Path)
    parser.add_argument("name")
    parser.add_argument("--command", required=True, help="the exact command, as a reader would type it")
    parser.add_argument("--commit", help="commit of the code that ran, if not the one checked out now")
    parser.add_argument("--validation", type=Path, help="what validate.py printed of the last checkpoint")
    parser.add_argument("--note", default="", help="circumstances worth knowing, e.g. what else the machine did")
    args = parser.parse_args()
    for path in (args.run_dir / "args.yaml", args.run_dir / "summary.csv", args.log):
        if not path.is_file():
            parser.error(f"{path} is not there: RUN_DIR must be train.py's output folder and LOG what it printed")

    run_args = yaml.safe_load((args.run_dir / "args.yaml").read_text())
    with (args.run_dir / "summary.csv").open(newline="") as file:
        epochs = [{key: float(value) for key, value in row.items()} for row in csv.DictReader(file)]
    last = epochs[-1]
    here = str(args.run_dir.resolve().parent)  # results hold no paths of the machine
    content = {
        "command": args.command,
        **provenance(),
        **({"commit": args.commit} if args.commit else {}),
        "seed": run_args["seed"],
        "schedule": {key: run_args[key] for key in SCHEDULE} | {"resume": run_args["resume"].replace(here, "OUTPUT")},
        "note": args.note,
        "last_epoch": int(last["epoch"]),
        "top1": last["eval_top1"],
        "top5": last["eval_top5"],
        "epochs": epochs,
    }
    if args.validation:
        content["validate.py"] = json.loads(args.validation.read_text().partition("--result")[2])
    folder = RECORDS / args.name
    try:
        check_recordable(folder, content["commit"])
    except ValueError as error:
        parser.error(str(error))
    write_json(folder / "result.json", content)
    save_atomically(folder / "summary.csv", lambda path: shutil.copyfile(args.run_dir / "summary.csv", path))
    log = args.log.read_text().replace(here, "OUTPUT").replace("\r", "\n")
    save_atomically(folder / "log.txt", lambda path: path.write_text(log))
    write_block(COMMAND, block())
    print(f"{args.name}: epoch {content['last_epoch']}, top-1 {content['top1']}%")


if __name__ == "__main__":
    main()
