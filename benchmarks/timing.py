"""Timing of several contenders in one process, in turn."""

import math
import time
from collections.abc import Callable, Mapping
from typing import TypeVar

import torch

Key = TypeVar("Key")
PAUSE = 0.02  # seconds for which threads of the last contender's pool may spin before the next one starts


def seconds_of(call: Callable[[], object], repeats: int, device: str) -> float:
    """Seconds of one call, the mean of ``repeats`` in a row."""
    if device == "cuda":
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        for _ in range(repeats):
            call()
        end.record()
        torch.cuda.synchronize()
        return start.elapsed_time(end) / 1e3 / repeats
    began = time.perf_counter()
    for _ in range(repeats):
        call()
    return (time.perf_counter() - began) / repeats


def interleaved(
    calls: Mapping[Key, Callable[[], object]],
    rounds: int,
    device: str = "cpu",
    warmup: int = 2,
    least_seconds: float = 0.2,
) -> dict[Key, list[float]]:
    """Seconds of each call in each round.

    After ``warmup`` untimed calls each, every round measures every contender once, one behind the other, so that what
    else happens on the machine meets all of them. A measurement repeats a short call until ``least_seconds`` are full.
    """
    repeats = {}
    for key, call in calls.items():
        for _ in range(warmup):
            call()
        repeats[key] = max(1, math.ceil(least_seconds / seconds_of(call, 1, device)))
    times: dict[Key, list[float]] = {key: [] for key in calls}
    for _ in range(rounds):
        for key, call in calls.items():
            time.sleep(PAUSE)
            times[key].append(seconds_of(call, repeats[key], device))
    return times
