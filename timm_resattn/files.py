"""Files that are whole or not there."""

import os
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import Iterator, Union

__all__ = ["check_target", "whole_file"]


def check_target(path: Union[str, "os.PathLike[str]"]) -> None:
    """Find out before the work whether a file could be written there; a `ValueError` of one sentence if not."""
    path = Path(path)
    if not path.parent.is_dir():
        raise ValueError(f"the folder of {str(path)!r} does not exist.")
    if path.is_dir():
        raise ValueError(f"{str(path)!r} is a folder.")
    if not os.access(path.parent, os.W_OK):
        raise ValueError(f"the folder of {str(path)!r} cannot be written to.")


@contextmanager
def whole_file(path: Union[str, "os.PathLike[str]"]) -> Iterator[Path]:
    """Where to write a file: in a folder beside ``path``, from where it is moved at the end of the ``with`` block.

    After an error in the block ``path`` is what it was before.

    Raises:
        ValueError: See `check_target`.
        OSError: Writing failed.
    """
    check_target(path)
    path = Path(path)
    with tempfile.TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent) as folder:
        partial = Path(folder, path.name)
        yield partial
        partial.replace(path)
