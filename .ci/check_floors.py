"""Check that .ci/floors.txt pins exactly the lower bounds in pyproject.toml, which itself pins only ruff."""

import re
import sys
from pathlib import Path

try:
    import tomllib
except ModuleNotFoundError:  # Python 3.10; pytest and mypy bring tomli there
    import tomli as tomllib

ROOT = Path(__file__).resolve().parent.parent
PINNED_EXTRAS = {"ruff"}  # see the reason in pyproject.toml


def split(requirement: str) -> tuple[str, str, str]:
    """Name, operator and version of ``name>=version`` or ``name==version``."""
    match = re.fullmatch(r"([A-Za-z0-9._-]+)\s*(>=|==)\s*([0-9.]+)", requirement)
    if match is None:
        raise ValueError(f"{requirement!r} is not of the form name>=version or name==version")
    name, operator, version = match.groups()
    return re.sub(r"[-_.]+", "-", name).lower(), operator, re.sub(r"(\.0)+$", "", version)


def problems() -> list[str]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lines = (ROOT / ".ci" / "floors.txt").read_text(encoding="utf-8").splitlines()
    found = []

    bounds = {}
    for name, operator, version in map(split, project["dependencies"]):
        bounds[name] = version
        if operator != ">=":
            found.append(f"pyproject.toml: dependency {name} must have a lower bound, not a pin")

    floors = {}
    for name, operator, version in (split(line.strip()) for line in lines if line.strip() and line[0] != "#"):
        floors[name] = version
        if operator != "==":
            found.append(f".ci/floors.txt: {name} must be pinned with ==")

    for name in sorted(bounds.keys() | floors.keys()):
        if bounds.get(name) != floors.get(name):
            found.append(f"{name}: pyproject.toml has {bounds.get(name)}, .ci/floors.txt has {floors.get(name)}")

    pinned = {
        split(requirement)[0]
        for requirements in project["optional-dependencies"].values()
        for requirement in requirements
        if "==" in requirement
    }
    if pinned != PINNED_EXTRAS:
        found.append(f"pyproject.toml: extras pin {sorted(pinned)}, but may pin only {sorted(PINNED_EXTRAS)}")
    return found


if __name__ == "__main__":
    errors = problems()
    print("\n".join(errors) or "floors.txt and pyproject.toml agree")
    sys.exit(bool(errors))
