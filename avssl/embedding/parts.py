"""The finished part of a run that is not finished: one Arrow file a unit, next to the output.

`OUT.parts/settings.json` says what the rows are; `OUT.parts/NAME.json`, written last, says that a unit is done. A run
that is killed and started again keeps the parts whose unit has not changed and makes the others.
"""

from __future__ import annotations

import hashlib
import shutil
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, Any

from avssl.embedding.sources import Unit
from avssl.errors import UsageError
from avssl.files import claim, read_json, write_json


@dataclass
class Part:
    """What became of a unit: how many rows it gave, and what failed as `{"path", "reason", "detail"}`."""

    unit: str
    fingerprint: str
    rows: int = 0
    failed: list[dict[str, str]] = field(default_factory=list)


class PartFolder:
    """The parts of one output."""

    def __init__(self, output: Path):
        self.folder = output.with_name(output.name + ".parts")
        self._settings = self.folder / "settings.json"
        self._lock: IO[bytes] | None = None

    def exists(self) -> bool:
        return self._settings.exists()

    def open(self, settings: dict[str, Any]) -> None:
        """Create the folder, or go on with the one that is there, and keep other processes out of it until `close`.

        Raises `UsageError` if its settings are others or another process writes here.
        """
        self._lock = claim(self.folder / ".lock", str(self.folder))
        if self.exists():
            refuse_other(read_json(self._settings), settings, f"{self.folder} holds an unfinished run, made")
        else:
            write_json(self._settings, settings)

    def path(self, unit: Unit) -> Path:
        """The unit's rows; the file is there if it gave any."""
        return self.folder / f"{hashlib.blake2b(unit.name.encode(), digest_size=16).hexdigest()}.arrow"

    def finished(self, unit: Unit) -> Part | None:
        """The unit's part if it was made in full, without failures, from the same content."""
        try:
            part = Part(**read_json(self.path(unit).with_suffix(".json")))
        except (OSError, ValueError, TypeError):
            return None
        whole = part.unit == unit.name and part.fingerprint == unit.fingerprint() and not part.failed
        return part if whole else None

    def finish(self, unit: Unit, part: Part) -> None:
        """Note that the unit's rows are complete."""
        write_json(self.path(unit).with_suffix(".json"), asdict(part))

    def close(self) -> None:
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def remove(self) -> None:
        """Delete all parts. Raises `UsageError` if another process writes here."""
        if self._lock is None and self.folder.exists():
            self._lock = claim(self.folder / ".lock", str(self.folder))
        self.close()
        shutil.rmtree(self.folder, ignore_errors=True)


def refuse_other(found: dict[str, Any], wanted: dict[str, Any], what: str) -> None:
    """Raise `UsageError` that names the settings in which `found` is not as `wanted`."""
    differing = [key for key in wanted if found.get(key) != wanted[key]]
    if differing:
        changes = ", ".join(f"{key} {found.get(key)!r} instead of {wanted[key]!r}" for key in differing)
        raise UsageError(
            f"{what} with other settings ({changes}); name another output or add --overwrite to start anew"
        )
