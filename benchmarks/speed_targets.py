"""Numbers to reach: a bar, an aim, what was measured, and whether that is enough."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

TARGET_FIELDS = ("target", "bar", "aim", "measured", "unit", "by", "reached")


@dataclass(frozen=True)
class Target:
    """A number to reach.

    Attributes:
        name: What is measured.
        bar: What is asked for.
        aim: What is hoped for; None for nothing more.
        unit: ``"x"`` for a ratio, ``"%"`` for a share.
        at_most: Whether less is better.
    """

    name: str
    bar: float
    aim: float | None = None
    unit: str = "x"
    at_most: bool = False

    def judge(self, measured: float | None, by: str = "") -> dict[str, Any]:
        """The row of the results: ``reached`` is aim, bar, no or, without a measurement, empty."""
        reached = ""
        if measured is not None:
            sign = -1 if self.at_most else 1
            if self.aim is not None and sign * measured >= sign * self.aim:
                reached = "aim"
            else:
                reached = "bar" if sign * measured >= sign * self.bar else "no"
        return {
            "target": self.name, "bar": self.bar, "aim": self.aim, "measured": measured, "unit": self.unit,
            "by": by, "reached": reached,
        }  # fmt: skip


def shown(value: Any, unit: str) -> str:
    """A number with its unit, or ``-``."""
    if value in (None, ""):
        return "-"
    return f"{100 * float(value):.0f}%" if unit == "%" else f"{float(value):.2f}x"


def as_table(rows: Iterable[Mapping[str, Any]]) -> str:
    """Rows of `Target.judge`, or of their file, as Markdown."""
    lines = ["| number to reach | bar | aim | measured | reached | by |", "|---|---:|---:|---:|---|---|"]
    for row in rows:
        numbers = " | ".join(shown(row[column], row["unit"]) for column in ("bar", "aim", "measured"))
        by = f"`{row['by']}`" if row["by"] else ""
        lines.append(f"| {row['target']} | {numbers} | {row['reached'] or 'not measured'} | {by} |")
    return "\n".join(lines) + "\n"
