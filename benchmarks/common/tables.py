"""Tables in Markdown, and numbers in words."""

from collections.abc import Iterable, Sequence


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[str]], text_columns: int = 1) -> str:
    """A table; all columns but the first ``text_columns`` are aligned to the right."""
    rule = ["---" if column < text_columns else "---:" for column in range(len(header))]
    lines = [header, rule, *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines) + "\n"


def counted(number: int, thing: str) -> str:
    """So many things, in words: "1 seed", "2 seeds"."""
    return f"{number} {thing}{'' if number == 1 else 's'}"
