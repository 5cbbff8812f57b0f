"""Tables in README.md stand between markers that name the command which writes them."""

from benchmarks.common.provenance import ROOT

README = ROOT / "README.md"


def with_block(readme: str, command: str, block: str) -> str:
    """The README's text with what stands between the markers of ``command`` replaced."""
    start, end = f"<!-- {command} -->\n", f"<!-- /{command} -->\n"
    before, _, rest = readme.partition(start)
    _, found, after = rest.partition(end)
    if not found:
        raise ValueError(f"README.md must hold the lines {start!r} and {end!r}")
    return before + start + block + end + after


def write_block(command: str, block: str) -> None:
    """Replace a block in README.md."""
    README.write_text(with_block(README.read_text(), command, block))
