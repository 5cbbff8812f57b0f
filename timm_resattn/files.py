"""Files that are written whole or not at all."""

import os
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import Iterator, Sequence, Union

__all__ = ["check_target", "written_whole"]


def check_target(path: Union[str, "os.PathLike[str]"], suffixes: Sequence[str] = (), what: str = "the file") -> Path:
    """Find out before the work whether a file could have this path; returns it as a `Path`.

    Raises:
        ValueError: The suffix is none of ``suffixes``, the folder does not exist or can't be written to, or it is a
            folder, a pipe or a device; ``what`` it would be is in the message.
    """
    path = Path(path)
    if suffixes and path.suffix.lower() not in suffixes:
        raise ValueError(f"{what}'s suffix must be one of {', '.join(suffixes)}; got {str(path)!r}.")
    folder = Path(os.path.realpath(path)).parent
    if not folder.is_dir():
        raise ValueError(f"the folder of {str(path)!r} does not exist.")
    if path.exists() and not path.is_file():
        raise ValueError(f"{str(path)!r} is {'a folder' if path.is_dir() else 'no file'}.")
    if not os.access(folder, os.W_OK):
        raise ValueError(f"the folder of {str(path)!r} cannot be written to.")
    return path


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """A path to write to, of the same name in a folder beside ``path``; moved to ``path`` if the block ends well.

    Where ``path`` is a link, what it points to is replaced.
    """
    target = Path(os.path.realpath(path))
    with tempfile.TemporaryDirectory(prefix=f".{path.name}.", dir=target.parent) as folder:
        partial = Path(folder, path.name)
        yield partial
        partial.replace(target)
