"""Where a measurement comes from: what every result file says beside its numbers."""

import importlib.metadata
import os
import platform
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "benchmarks" / "results"
NOT_INSTALLED = "not installed"
PACKAGES = ("torch", "timm", "torchvision", "numpy", "timm-resattn")


def commit() -> str:
    """The commit of the code; ``+changes`` if the code differs from it."""
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
        return NOT_INSTALLED


def provenance(packages: Sequence[str] = ()) -> dict[str, Any]:
    """Commit (``+changes`` if code differs from it), hardware and versions of `PACKAGES` and ``packages``."""
    return {
        "commit": commit(),
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


def check_recordable(folder: Path, measured_at: str | None = None) -> None:
    """Raise a `ValueError` if ``folder`` is among this repository's results and the code is of no clean commit.

    Args:
        folder: Where a result is to be recorded.
        measured_at: The commit of what was measured before; by default the present one.
    """
    revision = commit() if measured_at is None else measured_at
    recorded = folder.resolve().is_relative_to(RESULTS)
    if recorded and (revision.endswith("+changes") or revision.startswith("unknown")):
        raise ValueError(f"a result is recorded of a clean commit only, not of {revision}; commit first")
