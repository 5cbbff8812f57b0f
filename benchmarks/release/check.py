"""Check the weights that ship: files, manifest and pretrained cfgs agree.

    python -m benchmarks.release.check

Prints one line for each problem; the exit status is 1 if there is one.
"""

import argparse
import hashlib
import sys
from pathlib import Path
from typing import Any

from safetensors.torch import load_file
from timm.models import create_model, get_pretrained_cfg, list_models

import timm_resattn  # noqa: F401  registers the models
from timm_resattn.checkpoints import check_values
from timm_resattn.shipped import WEIGHTS, read_manifest

COMMAND = "python -m benchmarks.release.check"
FIELDS = ("sha256", "size", "accuracy", "dataset", "record", "commit", "schedule", "seed")


def check_weights(folder: Path = WEIGHTS) -> list[str]:
    """What is wrong with the weights in a folder: one line for each problem, none if all is well.

    Every file has an entry and every entry a file, with this SHA-256 and size and complete provenance; it
    loads strictly into its model, all values sane; a cfg of its name refers to it and names its classes.
    """
    manifest = read_manifest(folder)
    files = {path.name for path in folder.iterdir()} - {"manifest.json"}
    problems = []
    for name in sorted(files | manifest.keys()):
        if name not in manifest:
            found = ["is not in the manifest"]
        elif name not in files:
            found = ["is missing"]
        else:
            found = _check_entry(folder / name, manifest[name])
        problems += [f"{name} {problem}" for problem in found]
    for name in list_models(module="resattn", pretrained=True):
        cfg = get_pretrained_cfg(name)
        file = Path(cfg.file if cfg and cfg.file else "")
        if file.parent == folder and file.name not in manifest:
            problems.append(f"{file.name} is not in the manifest, but is the file of {name}")
    return problems


def _check_entry(path: Path, entry: dict[str, Any]) -> list[str]:
    if set(entry) != set(FIELDS) or None in entry.values() or "" in entry.values():
        return [f"has an entry of {', '.join(entry)}; it must hold {', '.join(FIELDS)}"]
    content = path.read_bytes()
    if len(content) != entry["size"]:
        return [f"has {len(content)} bytes, not {entry['size']}"]
    if hashlib.sha256(content).hexdigest() != entry["sha256"]:
        return ["has another SHA-256"]

    name = path.name.removesuffix(".safetensors")
    cfg = get_pretrained_cfg(name) if name in list_models(pretrained=True) else None
    if cfg is None or Path(cfg.file or "") != path:
        return [f"is not the file of the pretrained name {name}"]
    problems = []
    if len(cfg.label_names or ()) != cfg.num_classes:
        problems.append(f"is for {cfg.num_classes} classes, but the cfg names {len(cfg.label_names or ())}")
    tensors = load_file(path)
    try:
        check_values(tensors)
        create_model(name).load_state_dict(tensors, strict=True)
    except (RuntimeError, ValueError) as error:
        problems.append(f"is not fit to ship: {error}")
    return problems


def main(argv: list[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    parser = argparse.ArgumentParser(COMMAND, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.parse_args(argv)
    found = check_weights()
    print("\n".join(found) or "the weights that ship are in order")
    return int(bool(found))


if __name__ == "__main__":
    sys.exit(main())
