"""Counts of what was tried, by kind, and what has to be looked into."""

from collections.abc import Callable
from typing import Any

OUTCOMES = ("computed", "refused", "crashed", "wrong")
COLUMNS = ("tried", *OUTCOMES)
MOST_FAILURES = 100  # that are told in full


class WrongError(Exception):
    """A result, or a side effect, that should not be."""


class Tally:
    """Outcomes by kind.

    ``computed``: a result, and the right one. ``refused``: an error that names the cause, where there is one.
    ``crashed``: any other error, a signal, or too much time. ``wrong``: a wrong result, damaged input that was used,
    an error without a cause, or something left, lost or run that should not be.
    """

    def __init__(self) -> None:
        self.kinds: dict[str, dict[str, int]] = {}
        self.failures: list[dict[str, Any]] = []

    def add(self, kind: str, outcome: str, tried: Any = None, why: str = "") -> None:
        """Count one outcome; of those that should not be, what was tried and why it is one are kept."""
        counts = self.kinds.setdefault(kind, dict.fromkeys(COLUMNS, 0))
        counts["tried"] += 1
        counts[outcome] += 1
        if outcome in ("crashed", "wrong") and len(self.failures) < MOST_FAILURES:
            self.failures.append({"kind": kind, "outcome": outcome, "tried": str(tried), "why": why[:1000]})

    def try_(self, kind: str, tried: Any, check: Callable[[], str]) -> None:
        """Count what ``check`` returns, ``wrong`` if it raises a `WrongError`, and any other error as a crash."""
        try:
            self.add(kind, check())
        except WrongError as error:
            self.add(kind, "wrong", tried, str(error))
        except Exception as error:  # of any kind: that is what is counted
            self.add(kind, "crashed", tried, f"{type(error).__name__}: {error}")
