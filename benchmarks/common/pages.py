"""Generated blocks stand in README.md and docs/ between markers that name the command which writes them.

The module of the command has a function ``block`` that gives what stands there; links in it begin at the root.
"""

import argparse
from collections.abc import Callable
from pathlib import Path

from benchmarks.common.files import save_atomically
from benchmarks.common.provenance import ROOT


def pages() -> list[Path]:
    """The files that may hold blocks."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def with_block(text: str, command: str, block: str, depth: int = 0) -> str:
    """A page's text with what stands between the markers of ``command`` replaced, if it has them.

    Args:
        text: The page.
        command: The command of the block.
        block: What is to stand there.
        depth: Folders between the root and the page, for the block's links.
    """
    start, end = f"<!-- {command} -->\n", f"<!-- /{command} -->\n"
    before, found, rest = text.partition(start)
    if not found:
        return text
    _, found, after = rest.partition(end)
    if not found:
        raise ValueError(f"the marker {start!r} must be followed by {end!r}")
    return before + start + block.replace("](benchmarks/", f"]({'../' * depth}benchmarks/") + end + after


def write_block(command: str, block: str) -> None:
    """Replace a block in all pages that have it."""
    for page in pages():
        old = page.read_text()
        new = with_block(old, command, block, len(page.relative_to(ROOT).parts) - 1)
        if new != old:
            save_atomically(page, lambda partial, new=new: partial.write_text(new))


def renew(command: str, description: str | None, block: Callable[[], str], argv: list[str] | None = None) -> None:
    """Run a command without options that writes its block to all pages and prints it."""
    parser = argparse.ArgumentParser(
        command, description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )  # fmt: skip
    parser.parse_args(argv)
    text = block()
    write_block(command, text)
    print(text, end="")
