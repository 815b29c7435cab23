"""What a result depends on beside config and data: versions, hardware, and the commit of the source tree."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from avssl import __version__

_PACKAGES = ("torch", "numpy", "av", "decord", "torchcodec", "soundfile", "webdataset", "lightning-fabric")
_WRITTEN = ("docs", "eval/results", "benchmarks/results")


def environment(device: str = "cpu") -> dict[str, Any]:
    """Of this process; `device` as torch names it."""
    import torch

    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "avssl": __version__,
        "commit": commit(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": {name: version for name in _PACKAGES if (version := _version(name))},
        "cpu": _cpu_model(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "gpu": torch.cuda.get_device_name() if device.startswith("cuda") else None,
        "threads": torch.get_num_threads(),
    }


def commit(root: Path = Path(__file__).parent.parent) -> str | None:
    """The commit of the source tree that runs, `-dirty` where files differ from it; None for an installed package.

    Written results and pages do not count: no result depends on them, and a study that writes several would call its
    own later ones dirty.
    """
    if not (root / ".git").exists():
        return None
    commit = _git(root, "rev-parse", "HEAD")
    written = [f":(exclude){folder}" for folder in _WRITTEN]
    changed = _git(root, "status", "--porcelain", "--untracked-files=no", "--", ".", *written)
    return f"{commit}-dirty" if commit and changed else commit or None


def _git(root: Path, *arguments: str) -> str:
    """What git prints, empty where it fails."""
    try:
        answer = subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return answer.stdout.strip()


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor()
