"""Where a measurement comes from: what every result file says beside its numbers."""

import importlib.metadata
import json
import os
import platform
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks.common.files import save_atomically

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("torch", "timm", "torchvision", "numpy", "timm-resattn")


def _commit() -> str:
    if not (ROOT / ".git").exists():  # a copy of the files, as on a borrowed machine
        return os.environ.get("RESATTN_COMMIT", "unknown: no git repository")

    def git(*args: str) -> str:
        return subprocess.run(["git", *args], cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()

    changed = git("status", "--porcelain", "--", "timm_resattn", "benchmarks", ":!benchmarks/results")
    return git("rev-parse", "HEAD") + ("+changes" if changed else "")


def _cpu() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        if package == "timm-resattn":
            import timm_resattn

            return timm_resattn.__version__
        return "not installed"


def provenance(packages: Sequence[str] = ()) -> dict[str, Any]:
    """Commit (``+changes`` if code differs from it), hardware and versions of `PACKAGES` and ``packages``."""
    return {
        "commit": _commit(),
        "hardware": {
            "cpu": f"{_cpu()}, {os.cpu_count()} cores",
            "threads": torch.get_num_threads(),
            "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        },
        "versions": {
            "python": platform.python_version(),
            **{package: _version(package) for package in (*PACKAGES, *packages)},
        },
    }


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write ``content`` to ``path`` all at once."""
    path.parent.mkdir(parents=True, exist_ok=True)
    save_atomically(path, lambda partial: partial.write_text(json.dumps(content, indent=2) + "\n"))
