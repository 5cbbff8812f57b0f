"""The pages' table of all networks: size, and what their default weights are.

    python -m benchmarks.release.models

Parameters, and multiply-accumulates of convolutions and classifier, counted by torch's FlopCounterMode: exact on any
machine, nothing is timed. The deep networks of a family share a row.
"""

import re
from collections.abc import Sequence
from functools import partial

import timm
import torch
from torch.utils.flop_counter import FlopCounterMode

import timm_resattn
from benchmarks.common.pages import renew
from benchmarks.common.tables import markdown_table
from timm_resattn.shipped import read_manifest

COMMAND = "python -m benchmarks.release.models"
HEADER = ("name", "default weights", "top-1", "donor", "masks", "parameters", "GMACs", "input")
DEEP = 128  # from this depth on, networks share a row


def rows_of(names: Sequence[str]) -> list[list[str]]:
    """Names that share a row, in the order in which the first of them is defined."""
    rows: dict[str, list[str]] = {}
    for name in names:
        deep = re.fullmatch(r"resattn(\d+)(\w*)", name)
        rows.setdefault(f"deep{deep[2]}" if deep and int(deep[1]) >= DEEP else name, []).append(name)
    return list(rows.values())


def sizes_of(name: str, side: int = 0) -> tuple[int, float, int]:
    """Parameters, 10^9 multiply-accumulates for an image, and its side, by default that of the network's cfg."""
    model = timm.create_model(name, device="meta").eval()
    side = side or timm.get_pretrained_cfg(name).input_size[-1]
    with FlopCounterMode(display=False) as counter:
        model(torch.empty(1, 3, side, side, device="meta"))
    return sum(parameter.numel() for parameter in model.parameters()), counter.get_total_flops() / 2e9, side


def span(values: Sequence[float], form: str) -> str:
    """The smallest and the largest value, or the only one."""
    return " to ".join(dict.fromkeys(form.format(value) for value in (min(values), max(values))))


def tags_of(name: str) -> list[str]:
    """Full names of a network's weights, the default first."""
    default = timm.get_pretrained_cfg(name).tag
    return sorted(timm.list_pretrained(f"{name}.*"), key=lambda full: full.partition(".")[2] != default)


def donors_of(names: Sequence[str]) -> str:
    """The networks whose trunks the default weights are, with their parameters and GMACs at the same input size."""
    donors = {}
    for name in names:
        cfg = timm.get_pretrained_cfg(name)
        if cfg.hf_hub_id:
            donor = cfg.hf_hub_id.removeprefix("timm/").partition(".")[0]
            parameters, gmacs, _ = sizes_of(donor, cfg.input_size[-1])
            donors[donor] = f"`{donor}`: {parameters / 1e6:.1f}M, {gmacs:.2f}"
    return "; ".join(donors.values()) or "-"


def accuracy_of(full: str) -> str:
    """Top-1 of weights: of those that ship as measured here, of others as their cfg's description gives it."""
    cfg, entry = timm.get_pretrained_cfg(full), read_manifest().get(f"{full}.safetensors")
    if entry:
        return f"{entry['accuracy']}% ({entry['dataset']})"
    stated = re.search(r"\((\d[\d.]*% at [^)]*)\)|(\d[\d.]*%) top-1", cfg.description or "")
    return next(filter(None, stated.groups())) if stated else "-"


def weights_of(names: Sequence[str]) -> tuple[str, str, str, str]:
    """Of a row's default weights: tags, accuracy, donors; whether the masks are trained."""
    defaults = [tags_of(name)[0] for name in names if tags_of(name)]
    if not defaults:
        return "-", "-", "-", "-"
    tags = ", ".join(dict.fromkeys(f"`{full.partition('.')[2]}`" for full in defaults))
    without = [f"`{name}`" for name in names if not tags_of(name)]
    return (
        tags + (f"; none for {', '.join(without)}" if without else ""),
        "; ".join(dict.fromkeys(map(accuracy_of, defaults))),
        donors_of(names),
        "untrained" if any(timm.get_pretrained_cfg(full).hf_hub_id for full in defaults) else "trained",
    )


def row_of(names: Sequence[str]) -> tuple[str, ...]:
    """The line of networks that share one."""
    parameters, gmacs, sides = zip(*map(sizes_of, names), strict=True)
    return (
        ", ".join(f"`{name}`" for name in names),
        *weights_of(names),
        span([count / 1e6 for count in parameters], "{:.1f}M"),
        span(gmacs, "{:.2f}"),
        span(sides, "{}"),
    )


def block() -> str:
    """All networks."""
    names = list(timm_resattn.resattn.default_cfgs)
    return markdown_table(HEADER, map(row_of, rows_of(names)), text_columns=5)


main = partial(renew, COMMAND, __doc__, block)

if __name__ == "__main__":
    main()
