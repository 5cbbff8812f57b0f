"""Timing of several contenders in one process, in turn."""

import math
from collections.abc import Callable, Mapping
from typing import TypeVar

import torch
from torch.utils.benchmark import Timer

Key = TypeVar("Key")


def interleaved(
    calls: Mapping[Key, Callable[[], object]], rounds: int, least_seconds: float = 0.2
) -> dict[Key, list[float]]:
    """Seconds of each call in each round.

    Every round measures every contender once, one after the other, so that what else happens on the machine meets all
    of them. A measurement begins with two untimed calls and repeats a short call until ``least_seconds`` are full.
    """
    timers = {
        key: Timer("call()", globals={"call": call}, num_threads=torch.get_num_threads()) for key, call in calls.items()
    }
    repeats = {key: max(1, math.ceil(least_seconds / timer.timeit(1).mean)) for key, timer in timers.items()}
    times: dict[Key, list[float]] = {key: [] for key in calls}
    for _ in range(rounds):
        for key, timer in timers.items():
            times[key].append(timer.timeit(repeats[key]).mean)
    return times
