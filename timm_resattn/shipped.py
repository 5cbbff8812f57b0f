"""Weights inside this package: ``weights/NAME.safetensors`` for a pretrained name ``NAME``, ``model.tag``.

``weights/manifest.json`` holds one entry a file, by the file's name: its content (``sha256``, ``size`` in bytes),
what it reaches (``accuracy``, top-1 in percent on the test set of ``dataset``) and where it comes from
(``command``, ``commit``, ``schedule``, ``seed``). `check_weights` compares files, manifest and pretrained cfgs.
"""

import hashlib
import json
from pathlib import Path
from typing import Any, Dict, List, Union

import torch
from safetensors.torch import load_file
from timm.models import create_model, get_pretrained_cfg, list_models

__all__ = ["WEIGHTS", "check_weights", "read_manifest", "shipped_file"]

WEIGHTS = Path(__file__).resolve().parent / "weights"
FIELDS = ("sha256", "size", "accuracy", "dataset", "command", "commit", "schedule", "seed")


def shipped_file(name: str) -> str:
    """Absolute path of the weights of a pretrained name, for the ``file`` of its cfg."""
    return str(WEIGHTS / f"{name}.safetensors")


def read_manifest(folder: Union[str, Path] = WEIGHTS) -> Dict[str, Dict[str, Any]]:
    """The manifest's entries by file name."""
    text = Path(folder, "manifest.json").read_text(encoding="utf-8")
    manifest: Dict[str, Dict[str, Any]] = json.loads(text)
    return manifest


def check_weights(folder: Union[str, Path] = WEIGHTS) -> List[str]:
    """What is wrong with the weights that ship: one line for each problem, none if all is well.

    Every file has an entry and every entry a file, with this SHA-256 and size and complete provenance; it
    loads strictly into its model, all values finite; a cfg of its name refers to it and names its classes.
    """
    folder = Path(folder)
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


def _check_entry(path: Path, entry: Dict[str, Any]) -> List[str]:
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
    if not all(torch.isfinite(tensor).all() for tensor in tensors.values()):
        problems.append("holds values that are not finite")
    try:
        create_model(name).load_state_dict(tensors, strict=True)
    except RuntimeError as error:
        problems.append(f"does not fit its model: {error}")
    return problems
