"""What errors of several seeds tell: their mean and spread, and whether one network's are above another's."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import mean, stdev

from scipy.stats import t as student_t

from benchmarks.common.tables import counted

CONFIDENCE = 0.95


def spread(errors: Sequence[float]) -> float:
    """The standard deviation; NaN for one value, which tells none."""
    return stdev(errors) if len(errors) > 1 else math.nan


def mean_and_spread(errors: Sequence[float]) -> str:
    """The mean, and from two values on the standard deviation, as text."""
    return f"{mean(errors):.2f}" + (f" ± {spread(errors):.2f}" if len(errors) > 1 else "")


@dataclass(frozen=True)
class Difference:
    """A mean difference with its 95% interval.

    Attributes:
        mean: The mean over the pairs.
        margin: Half the interval's width; infinite for one pair, which tells no spread.
        pairs: How many there are.
    """

    mean: float
    margin: float
    pairs: int

    @property
    def sign(self) -> int:
        """1 where the whole interval is above zero, -1 where it is below, else 0: open."""
        return (self.mean - self.margin > 0) - (self.mean + self.margin < 0)

    def __str__(self) -> str:
        margin = f" ± {self.margin:.2f}" if self.pairs > 1 else ""
        return f"{self.mean:+.2f}{margin} ({counted(self.pairs, 'seed')})"


def paired_difference(better: Mapping[str, float], worse: Mapping[str, float]) -> Difference | None:
    """How much more error ``worse`` makes than ``better``, over the seeds that both have; None where they share none.

    Args:
        better: Error by seed of what is thought the better one.
        worse: That of the other.
    """
    differences = [worse[seed] - better[seed] for seed in better if seed in worse]
    count = len(differences)
    if not count:
        return None
    if count == 1:
        return Difference(differences[0], math.inf, 1)
    quantile = float(student_t.ppf((1 + CONFIDENCE) / 2, count - 1))
    return Difference(mean(differences), quantile * stdev(differences) / math.sqrt(count), count)
