"""Where a contender's time goes: its operators, by torch's profiler."""

from collections.abc import Callable
from typing import Any

from torch.profiler import ProfilerActivity, profile

PROFILE_FIELDS = ("contender", "operator", "shapes", "calls", "ms", "share")
FORWARDS = 5
LEAST_SHARE = 0.002


def operators(call: Callable[[], object], device: str = "cpu") -> list[dict[str, Any]]:
    """Operators of one call by falling time of their own: shapes of their inputs, calls, milliseconds, share.

    What takes less than `LEAST_SHARE` of the time is summed up in the last row.
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
        time = event.self_device_time_total if device == "cuda" else event.self_cpu_time_total
        shapes = " ".join("x".join(map(str, shape)) for shape in event.input_shapes if shape)
        rows.append(
            {"operator": event.key, "shapes": shapes, "calls": event.count // FORWARDS, "ms": time / 1e3 / FORWARDS}
        )
    total = sum(row["ms"] for row in rows)
    for row in rows:
        row["share"] = row["ms"] / total
    rows.sort(key=lambda row: -row["ms"])
    shown = [row for row in rows if row["share"] >= LEAST_SHARE]
    rest = [row for row in rows if row["share"] < LEAST_SHARE]
    return [
        *shown,
        {
            "operator": f"({len(rest)} others)",
            "shapes": "",
            "calls": sum(row["calls"] for row in rest),
            "ms": sum(row["ms"] for row in rest),
            "share": sum(row["share"] for row in rest),
        },
    ]
