"""Results, each written all at once: a file is the old one or the new one, never half of it."""

import csv
import io
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout

from timm_resattn.files import written_whole

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def save_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Let ``write`` write a file, then put it in the place of ``path``, whose folder is made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with written_whole(path) as partial:
        write(partial)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Make the folder and keep other processes that ask for it out; raises a `ValueError` if one is in it."""
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(folder / ".lock", timeout=0):
            yield
    except Timeout:
        raise ValueError(f"another process is writing to {folder}") from None


def write_json(path: Path, content: Any) -> None:
    """Write ``content`` to ``path``."""
    save_atomically(path, lambda partial: partial.write_text(json.dumps(content, indent=2) + "\n"))


def as_text(value: Any) -> str:
    """A cell: nothing for None, five significant digits for a float."""
    if value is None:
        return ""
    return f"{value:.5g}" if isinstance(value, float) else str(value)


def write_csv(path: Path, fields: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> None:
    """Write ``rows`` to ``path`` with the columns ``fields``, missing ones empty."""
    file = io.StringIO()
    writer = csv.DictWriter(file, fields, lineterminator="\n")
    writer.writeheader()
    writer.writerows({field: as_text(row.get(field)) for field in fields} for row in rows)
    save_atomically(path, lambda partial: partial.write_text(file.getvalue()))


def read_csv(path: Path) -> list[dict[str, str]]:
    """Rows of a file that `write_csv` wrote; none if there is no such file."""
    if not path.is_file():
        return []
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def write_figure(path: Path, figure: "Figure") -> None:
    """Write a picture as PNG."""
    save_atomically(path, lambda partial: figure.savefig(partial, dpi=110, format="png"))
