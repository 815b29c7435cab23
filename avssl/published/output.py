"""Where conversions are written: folders and files appear whole, and nothing of others is replaced."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

from avssl.errors import ModelError, UsageError
from avssl.models.folder import CARD, CONFIG, read_description


def refuse_foreign_folder(folder: Path) -> None:
    """Raise UsageError unless `folder` is absent, empty, or made by a conversion (which may be made again)."""
    if not folder.exists():
        return
    if not folder.is_dir():
        raise UsageError(f"{folder}: is a file, and the output of a conversion is a folder; name another")
    paths = list(folder.iterdir())
    known = all(path.name in (CARD, CONFIG) or path.suffix == ".safetensors" for path in paths)
    if paths and not (known and _is_converted(folder)):
        raise UsageError(f"{folder}: is not the output of an earlier conversion, so it is left as it is; name another")


def _is_converted(folder: Path) -> bool:
    try:
        source = read_description(folder).get("source")
    except ModelError:
        return False
    return isinstance(source, dict) and "layout" in source


def refuse_existing_file(file: Path) -> None:
    """Raise UsageError if there is something of this name."""
    if file.exists():
        raise UsageError(f"{file}: exists, so it is left as it is; name another output or remove it")


def write_folder(folder: Path, fill: Callable[[Path], object]) -> None:
    """Call `fill` on a temporary neighbour and put it in the place of `folder`."""
    folder = folder.resolve()  # a link stays, what it points to is replaced
    folder.parent.mkdir(parents=True, exist_ok=True)
    new, old = (folder.with_name(f".{folder.name}.{os.getpid()}.{suffix}") for suffix in ("new", "old"))
    try:
        fill(new)
        if folder.exists():
            folder.rename(old)
        new.rename(folder)
    finally:
        shutil.rmtree(new, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)
