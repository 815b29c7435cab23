"""Checkpoints on disk: whole or absent, verified before use, the last few and the best kept."""

from __future__ import annotations

import os
import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from avssl import files
from avssl.errors import ModelError

FORMAT, VERSION = "avssl-checkpoint", 2
_NAME = re.compile(r"step-(\d{8,})\.pt")


class Checkpoints:
    """The files `step-NNNNNNNN.pt` and `best.pt` of a folder. A checkpoint is a dict of tensors and plain values."""

    def __init__(self, folder: Path, keep: int):
        self.folder, self.keep = folder, keep

    def save(self, step: int, state: dict[str, Any], *, best: bool) -> Path:
        """Write the checkpoint of `step`; `best` makes it best.pt too. Older ones beyond `keep` are removed."""
        path = self.folder / f"step-{step:08d}.pt"
        content = {"format": FORMAT, "version": VERSION, "step": step, **state}
        files.write_atomic(path, lambda file: torch.save(content, file))
        if best:
            self._link(path, self.folder / "best.pt")
        for old in self.paths()[: -self.keep]:
            old.unlink()
        return path

    def paths(self) -> list[Path]:
        """The checkpoints there are, oldest first."""
        if not self.folder.is_dir():
            return []
        return sorted(path for path in self.folder.iterdir() if _NAME.fullmatch(path.name))

    def latest(self, say: Callable[[str], None]) -> Path | None:
        """The newest checkpoint that is intact; a damaged one is reported and passed over. None if there is none.

        If there are checkpoints but all are damaged, that is a `ModelError`: starting anew should be a decision.
        """
        paths = self.paths()
        for path in reversed(paths):
            problem = damage(path)
            if problem is None:
                return path
            say(f"{path}: damaged checkpoint passed over ({problem})")
        if paths:
            raise ModelError(
                f"{self.folder}: all {len(paths)} checkpoints are damaged; delete them to start the run from step 0"
            )
        return None

    @staticmethod
    def _link(path: Path, name: Path) -> None:
        """Give the file a second name, replacing what had it."""
        temporary = name.with_name(f".{name.name}.{os.getpid()}.tmp")
        temporary.unlink(missing_ok=True)
        try:
            os.link(path, temporary)
        except OSError:  # a file system without hard links
            files.write_atomic(name, lambda file: file.write(path.read_bytes()))
        else:
            temporary.replace(name)


def damage(path: Path) -> str | None:
    """What is wrong with a checkpoint file, or None: every member is read and its checksum compared."""
    try:
        with zipfile.ZipFile(path) as archive:
            member = archive.testzip()
    except (OSError, zipfile.BadZipFile, EOFError, ValueError, NotImplementedError) as error:
        return str(error)
    return f"checksum of {member}" if member else None


def load(path: Path, *, mapped: bool = False) -> dict[str, Any]:
    """The content of a checkpoint, on the CPU. Never unpickles objects.

    mapped: read tensors from the file when they are looked at, so that ranks of a machine share what they read, and a
    rank reads of a sharded bank its part only. The file must stay as long as they are used.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except Exception as error:  # torch raises many kinds here
        raise ModelError(f"{path}: cannot be read as a checkpoint ({str(error).splitlines()[0]})") from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise ModelError(f"{path}: not a checkpoint of avssl-train")
    if content["version"] != VERSION:
        raise ModelError(f"{path}: checkpoint version {content['version']}, this avssl reads version {VERSION}")
    return content
