"""The licences of what the package installs, as the distributions themselves state them.

    python -m benchmarks.release.licences

Writes them to ``benchmarks/results/licences.json`` and to their block in the pages.
"""

import argparse
import importlib.metadata
import json
import re
from importlib.metadata import PackageMetadata
from typing import Any

from benchmarks.common.files import write_json
from benchmarks.common.pages import write_block
from benchmarks.common.provenance import RESULTS, check_recordable, provenance
from benchmarks.common.tables import markdown_table

COMMAND = "python -m benchmarks.release.licences"
RECORD = RESULTS / "licences.json"
EXTRAS = ("", "demo", "app", "export")  # those of the commands


def licence_of(metadata: PackageMetadata) -> str:
    """The expression, or else the classifiers, or else the first line of the field ``License``."""
    if metadata["License-Expression"]:
        return metadata["License-Expression"]
    classifiers = [line for line in metadata.get_all("Classifier") or [] if line.startswith("License :: ")]
    named = [line.rpartition(" :: ")[2] for line in classifiers if line != "License :: OSI Approved"]
    return ", ".join(named) or (metadata["License"] or "not stated").splitlines()[0]


def found() -> list[dict[str, Any]]:
    """Each requirement of the package and of `EXTRAS`: its lower bound, and the licence of what is there."""
    rows: dict[str, dict[str, Any]] = {}
    for requirement in importlib.metadata.requires("timm-resattn") or []:
        match = re.fullmatch(r"([\w.-]+)>=([\d.]+)(?:; extra == [\"'](\w+)[\"'])?", requirement)
        if match and (match[3] or "") in EXTRAS:
            licence = licence_of(importlib.metadata.metadata(match[1]))
            row = {"name": match[1], "bound": match[2], "extras": [], "licence": licence}
            rows.setdefault(match[1], row)["extras"].append(match[3] or "")
    return list(rows.values())


def block() -> str:
    """The record's table."""
    return markdown_table(
        ("package", "from version", "for", "licence"),
        [
            (
                f"`{row['name']}`",
                row["bound"],
                ", ".join(f"`[{extra}]`" if extra else "all of it" for extra in row["extras"]),
                row["licence"],
            )
            for row in json.loads(RECORD.read_text())["packages"]
        ],
        text_columns=4,
    )


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(COMMAND, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.parse_args(argv)
    check_recordable(RECORD.parent)
    rows = found()
    write_json(
        RECORD, {"command": COMMAND, **provenance([row["name"] for row in rows]), "packages": rows}
    )  # fmt: skip
    write_block(COMMAND, block())
    print(block(), end="")


if __name__ == "__main__":
    main()
