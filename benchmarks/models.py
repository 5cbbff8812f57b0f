"""Size of every network, and the README's table of them.

    python -m benchmarks.models

Writes benchmarks/results/models.csv (parameters; multiply-accumulates of convolutions and classifier, counted by
torch's FlopCounterMode) and replaces the table in README.md. Exact on any machine: nothing is timed.
"""

import csv
import io

import timm
import torch
from torch.utils.flop_counter import FlopCounterMode

import timm_resattn
from benchmarks.common.provenance import ROOT
from benchmarks.readme import write_block

RESULTS = ROOT / "benchmarks" / "results" / "models.csv"
COMMAND = "python -m benchmarks.models"
FIELDS = ("model", "parameters", "gmacs", "input_size", "num_classes", "weights")


def sizes() -> list[dict[str, str]]:
    """One row a network, in the order in which they are defined."""
    rows = []
    for name in timm_resattn.resattn.default_cfgs:
        cfg = timm.get_pretrained_cfg(name)
        model = timm.create_model(name, device="meta").eval()
        with FlopCounterMode(display=False) as counter:
            model(torch.empty(1, *cfg.input_size, device="meta"))
        tags = timm.list_pretrained(f"{name}.*")
        rows.append(
            {
                "model": name,
                "parameters": str(sum(p.numel() for p in model.parameters())),
                "gmacs": f"{counter.get_total_flops() / 2e9:.3f}",
                "input_size": str(cfg.input_size[-1]),
                "num_classes": str(cfg.num_classes),
                "weights": " ".join(sorted(tag.partition(".")[2] for tag in tags)),
            }
        )
    return rows


def as_csv(rows: list[dict[str, str]]) -> str:
    file = io.StringIO()
    writer = csv.DictWriter(file, FIELDS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return file.getvalue()


def as_markdown(rows: list[dict[str, str]]) -> str:
    lines = ["| name | parameters | GMACs | input | weights |", "|---|---:|---:|---:|---|"]
    for row in rows:
        parameters = f"{int(row['parameters']):,}"
        tags = row["weights"].split()
        weights = ", ".join(f"`{tag}`" for tag in tags[:2]) + (f" and {len(tags) - 2} more" if len(tags) > 2 else "")
        lines.append(f"| `{row['model']}` | {parameters} | {row['gmacs']} | {row['input_size']} | {weights or '-'} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    rows = sizes()
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    RESULTS.write_text(as_csv(rows))
    write_block(COMMAND, as_markdown(rows))
    print(f"{RESULTS.relative_to(ROOT)}: {len(rows)} networks")


if __name__ == "__main__":
    main()
