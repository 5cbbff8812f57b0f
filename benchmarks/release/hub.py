"""Write hf_configs/: for each pretrained name its ``config.json``, in timm's form, and its model card.

    python -m benchmarks.release.hub          # write, and remove what belongs to no pretrained name
    python -m benchmarks.release.hub --check  # only say what is out of step; exit code 1 if anything is

The form of ``config.json`` is that of timm 1.0.31; timm 1.0.29 writes fewer entries.
"""

import argparse
import shutil
import sys
import tempfile
from pathlib import Path

import timm
from timm.models._hub import save_config_for_hf

import timm_resattn  # noqa: F401  registers the models
from benchmarks.common.provenance import ROOT
from benchmarks.release.cards import pretrained_card
from timm_resattn.convert import without_num_classes

COMMAND = "python -m benchmarks.release.hub"
FOLDERS = ROOT / "hf_configs"


def contents(folder: Path) -> dict[str, bytes]:
    """Every file of the folders below, by its path."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.glob("*/*"))}


def generate(folder: Path) -> None:
    """Write the folder of every pretrained name, and no other, into ``folder``."""
    names = timm.list_models(module="resattn", pretrained=True)
    for stale in {path.parent for path in folder.glob("*/config.json")} - {folder / name for name in names}:
        shutil.rmtree(stale)
    for name in names:
        model = timm.create_model(name, device="meta")
        (folder / name).mkdir(exist_ok=True)
        save_config_for_hf(model, folder / name / "config.json")
        without_num_classes(folder / name / "config.json")
        (folder / name / "README.md").write_text(pretrained_card(model), encoding="utf-8")


def out_of_step(folder: Path, scratch: Path) -> list[str]:
    """Paths in ``folder`` that are missing, left over or not what is generated into ``scratch``."""
    generate(scratch)
    wanted, found = contents(scratch), contents(folder)
    return sorted(path for path in wanted.keys() | found.keys() if wanted.get(path) != found.get(path))


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    parser = argparse.ArgumentParser(COMMAND, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing, only compare")
    if not parser.parse_args(argv).check:
        generate(FOLDERS)
        return 0
    with tempfile.TemporaryDirectory() as scratch:
        stale_paths = out_of_step(FOLDERS, Path(scratch))
    print("\n".join(f"out of step: {path}" for path in stale_paths) or "hf_configs/ is in step")
    return int(bool(stale_paths))


if __name__ == "__main__":
    sys.exit(main())
