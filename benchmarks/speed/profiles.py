"""Where a contender's time goes: its operators, by torch's profiler."""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from benchmarks.common.tables import markdown_table

PROFILE_FIELDS = ("contender", "kind", "operator", "shapes", "calls", "ms", "share")
FORWARDS = 5
LEAST_SHARE = 0.002
# the first pattern in an operator's name decides; a compiled kernel, which does several things, goes by its costliest
KINDS = {
    "convolutions": "conv",
    "interpolation": "upsample|unsafe_index",
    "pooling": "max_pool",
    "norms and activations": "batch_norm|relu|clamp_min|sigmoid",
    "sums and products": "addcmul|add_|mul_|::add|::mul",
    "classifier": "linear|addmm|mean|mm$",
}
OTHER = "other"
KIND_NAMES = (*KINDS, OTHER)
DEPTHWISE = re.compile(r"\b(\d+)x1x1x1\b")


def kind_of(operator: str, shapes: str) -> str:
    """What an operator does: one of `KIND_NAMES`.

    A depthwise 1x1 convolution computes no more than a norm, for which `optimize_for_inference` uses it.
    """
    kind = next((kind for kind, pattern in KINDS.items() if re.search(pattern, operator)), OTHER)
    if kind == "convolutions" and DEPTHWISE.search(shapes):
        return "norms and activations"
    return kind


def by_kind(rows: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, float]]:
    """Milliseconds of each kind for each contender."""
    times: dict[str, dict[str, float]] = {}
    for row in rows:
        kinds = times.setdefault(row["contender"], dict.fromkeys(KIND_NAMES, 0.0))
        kinds[row["kind"]] += float(row["ms"])
    return times


def as_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Milliseconds of each kind, and the share of the contender's time, as Markdown."""
    body = []
    for contender, kinds in by_kind(rows).items():
        total = sum(kinds.values())
        cells = [f"{time:.0f} ({time / total:.0%})" for time in kinds.values()]
        body.append((f"`{contender}`", *cells, f"{total:.0f}"))
    return markdown_table(("ms of a batch", *KIND_NAMES, "all"), body)


def operators(call: Callable[[], object], device: str = "cpu") -> list[dict[str, Any]]:
    """Operators of one call by falling time of their own: kind, shapes of inputs, calls, milliseconds, share.

    What takes less than `LEAST_SHARE` of the time is summed up in the last row. On a GPU the time is that of the
    kernels that an operator launches; a CUDA graph is one operator.
    """
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if device == "cuda" else [])]
    for _ in range(2):
        call()
    with profile(activities=activities, record_shapes=True) as profiler:
        for _ in range(FORWARDS):
            call()
    events = profiler.key_averages(group_by_input_shape=True)
    rows = []
    for event in events:
        if event.device_type != DeviceType.CPU:  # a kernel, whose time its operator has too
            continue
        time = event.self_device_time_total if device == "cuda" else event.self_cpu_time_total
        shapes = " ".join("x".join(map(str, shape)) for shape in event.input_shapes if shape)
        rows.append(
            {"operator": event.key, "shapes": shapes, "calls": event.count // FORWARDS, "ms": time / 1e3 / FORWARDS}
        )
    total = sum(row["ms"] for row in rows)
    for row in rows:
        row["share"] = row["ms"] / total if total else 0.0
        row["kind"] = kind_of(row["operator"], row["shapes"])
    rows.sort(key=lambda row: -row["ms"])
    shown = [row for row in rows if row["share"] >= LEAST_SHARE]
    rest = [row for row in rows if row["share"] < LEAST_SHARE]
    return [
        *shown,
        {
            "operator": f"({len(rest)} others)",
            "kind": OTHER,
            "shapes": "",
            "calls": sum(row["calls"] for row in rest),
            "ms": sum(row["ms"] for row in rest),
            "share": sum(row["share"] for row in rest),
        },
    ]
