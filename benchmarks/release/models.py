"""Size of every network, and the pages' table of them.

    python -m benchmarks.release.models

Parameters, and multiply-accumulates of convolutions and classifier, counted by torch's FlopCounterMode: exact on any
machine, nothing is timed.
"""

import argparse

import timm
import torch
from torch.utils.flop_counter import FlopCounterMode

import timm_resattn
from benchmarks.common.pages import write_block
from benchmarks.common.tables import markdown_table

COMMAND = "python -m benchmarks.release.models"
HEADER = ("name", "parameters", "GMACs", "input", "weights")


def row_of(name: str) -> tuple[str, ...]:
    """A network's line."""
    model = timm.create_model(name, device="meta").eval()
    side = timm.get_pretrained_cfg(name).input_size[-1]
    with FlopCounterMode(display=False) as counter:
        model(torch.empty(1, 3, side, side, device="meta"))
    tags = sorted(full.partition(".")[2] for full in timm.list_pretrained(f"{name}.*"))
    weights = ", ".join(f"`{tag}`" for tag in tags[:2]) + (f" and {len(tags) - 2} more" if len(tags) > 2 else "")
    parameters = sum(parameter.numel() for parameter in model.parameters())
    return f"`{name}`", f"{parameters:,}", f"{counter.get_total_flops() / 2e9:.3f}", str(side), weights or "-"


def block() -> str:
    """All networks, in the order in which they are defined."""
    return markdown_table(HEADER, map(row_of, timm_resattn.resattn.default_cfgs))


def main() -> None:
    argparse.ArgumentParser(
        COMMAND, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    ).parse_args()
    text = block()
    write_block(COMMAND, text)
    print(text, end="")


if __name__ == "__main__":
    main()
