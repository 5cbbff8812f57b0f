"""Check that a wheel holds every file of timm_resattn/, weights and py.typed too, and nothing else."""

import sys
from pathlib import Path
from zipfile import ZipFile

ROOT = Path(__file__).resolve().parent.parent


def problems(wheel: str) -> list[str]:
    packaged = {name for name in ZipFile(wheel).namelist() if ".dist-info/" not in name}
    source = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "timm_resattn").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    found = [f"not in the wheel: {name}" for name in sorted(source - packaged)]
    found += [f"only in the wheel: {name}" for name in sorted(packaged - source)]
    if "timm_resattn/py.typed" not in source:
        found.append("timm_resattn/py.typed is missing")
    return found


if __name__ == "__main__":
    errors = problems(sys.argv[1])
    print("\n".join(errors) or f"{Path(sys.argv[1]).name} is complete")
    sys.exit(bool(errors))
