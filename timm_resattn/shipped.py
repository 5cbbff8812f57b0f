"""Weights inside this package: ``weights/NAME.safetensors`` for a pretrained name ``NAME``, ``model.tag``.

``weights/manifest.json`` holds one entry a file, by the file's name: its content (``sha256``, ``size`` in bytes),
what it reaches (``accuracy``, top-1 in percent on the test set of ``dataset``) and where it comes from
(``record``, ``commit``, ``schedule``, ``seed``).
"""

import hashlib
import json
from pathlib import Path
from typing import Any, Dict, Union

__all__ = ["WEIGHTS", "check_hash", "read_manifest", "shipped_file"]

WEIGHTS = Path(__file__).resolve().parent / "weights"


def shipped_file(name: str) -> str:
    """Absolute path of the weights of a pretrained name, for the ``file`` of its cfg."""
    return str(WEIGHTS / f"{name}.safetensors")


def read_manifest(folder: Union[str, Path] = WEIGHTS) -> Dict[str, Dict[str, Any]]:
    """The manifest's entries by file name."""
    text = Path(folder, "manifest.json").read_text(encoding="utf-8")
    manifest: Dict[str, Dict[str, Any]] = json.loads(text)
    return manifest


def check_hash(path: Path) -> None:
    """Raise a `ValueError` if ``path`` is a file that ships and its content is not the manifest's."""
    if path.parent == WEIGHTS and hashlib.sha256(path.read_bytes()).hexdigest() != read_manifest()[path.name]["sha256"]:
        raise ValueError(f"{path} is damaged: install timm_resattn again.")
