"""Check that a wheel, and a source distribution, hold what they should and nothing else.

The wheel: every file of timm_resattn/, weights and py.typed too. The source distribution: these, the tests, and the
files at the top that pyproject.toml and the README refer to.
"""

import json
import sys
import tarfile
from pathlib import Path
from zipfile import ZipFile

ROOT = Path(__file__).resolve().parent.parent
TOP = {".gitignore", "CHANGELOG.md", "CITATION.cff", "LICENSE", "NOTICE", "PKG-INFO", "README.md", "pyproject.toml"}


def files_in(folder: str) -> set[str]:
    return {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / folder).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


def problems(path: Path) -> list[str]:
    wanted = files_in("timm_resattn")
    manifest = json.loads((ROOT / "timm_resattn/weights/manifest.json").read_text())
    wanted |= {"timm_resattn/py.typed", *(f"timm_resattn/weights/{name}" for name in manifest)}
    if path.suffix == ".whl":
        names = ZipFile(path).namelist()
        packaged = {name for name in names if ".dist-info/" not in name}
        about = {name.partition(".dist-info/")[2] for name in names}
        wanted |= {"licenses/LICENSE", "licenses/NOTICE", "entry_points.txt"}
        packaged |= about & {"licenses/LICENSE", "licenses/NOTICE", "entry_points.txt"}
    else:
        with tarfile.open(path) as archive:
            packaged = {member.name.partition("/")[2] for member in archive if member.isfile()}
        wanted |= files_in("tests") | TOP
    found = [f"not in {path.name}: {name}" for name in sorted(wanted - packaged)]
    found += [f"only in {path.name}: {name}" for name in sorted(packaged - wanted)]
    return found


if __name__ == "__main__":
    errors = [error for path in sys.argv[1:] for error in problems(Path(path))]
    print("\n".join(errors) or f"complete: {', '.join(Path(path).name for path in sys.argv[1:])}")
    sys.exit(bool(errors))
