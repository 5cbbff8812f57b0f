"""Print the N-th shell command of a Markdown file, as it stands there: readme_command.py FILE N."""

import re
import sys
from pathlib import Path

FENCE = re.compile(r"^(```+|~~~+)(\S*)[^\n]*\n(.*?)^\1", re.DOTALL | re.MULTILINE)  # fence, language, block
SHELLS = {"bash", "sh", "shell"}  # one command a line; comments are skipped
CONSOLES = {"console", "shell-session"}  # commands start with "$ ", the rest is output


def shell_commands(text: str) -> list[str]:
    """All commands in fenced shell blocks; one that goes on after a backslash keeps its lines."""
    commands = []
    for _, language, block in FENCE.findall(text):
        lines = block.replace("\\\n", "\0").splitlines()
        if language in CONSOLES:
            commands += [line[2:] for line in lines if line.startswith("$ ")]
        elif language in SHELLS:
            commands += [line for line in lines if line.strip() and not line.lstrip().startswith("#")]
    return [command.replace("\0", "\\\n") for command in commands]


if __name__ == "__main__":
    path, number = Path(sys.argv[1]), int(sys.argv[2])
    found = shell_commands(path.read_text(encoding="utf-8"))
    if len(found) < number:
        sys.exit(f"{path} has {len(found)} shell commands, fewer than {number}")
    print(found[number - 1])
