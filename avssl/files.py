"""Files that are whole or absent: a reader never sees half of one, a kill never leaves one under its final name."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import IO, Any

from avssl.errors import UsageError


def write_atomic(path: str | os.PathLike[str], write: Callable[[IO[bytes]], object]) -> None:
    """Call `write(file)` on a temporary neighbour of `path`, flush it to disk and rename it into place."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    sync_directory(path.parent)


def sync_directory(directory: Path) -> None:
    """Make renames inside `directory` survive a power cut, where the file system can."""
    try:
        descriptor = os.open(directory, os.O_RDONLY)
    except OSError:  # e.g. Windows
        return
    try:
        os.fsync(descriptor)
    except OSError:  # some network file systems refuse
        pass
    finally:
        os.close(descriptor)


def claim(path: str | os.PathLike[str], what: str) -> IO[bytes]:
    """Make the lock file `path` this process's own until what is returned is closed or the process ends in any way.

    Raises UsageError that begins with `what` if another process has it. File systems without locks are not guarded.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    file = path.open("a+b")
    try:
        import fcntl  # not on every system

        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        file.seek(0)
        holder = file.read(200).decode(errors="replace").strip()
        file.close()
        raise UsageError(f"{what}: another process is writing here ({holder}); wait for it, or name another") from None
    except (ImportError, OSError):
        return file
    file.truncate(0)
    file.write(f"process {os.getpid()} on {socket.gethostname()}".encode())
    file.flush()
    return file


def write_json(path: str | os.PathLike[str], value: Any) -> None:
    """Write `value` as indented JSON, atomically. Floats that are not finite are an error."""
    text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    write_atomic(path, lambda file: file.write(text.encode()))


def write_jsonl(path: str | os.PathLike[str], rows: Iterable[Any]) -> None:
    """Write one compact JSON value a line, atomically."""

    def write(file: IO[bytes]) -> None:
        for row in rows:
            file.write(json_line(row))

    write_atomic(path, write)


def json_line(row: Any) -> bytes:
    """One line of JSONL: compact, key order kept, UTF-8."""
    return json.dumps(row, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode() + b"\n"


def read_json(path: str | os.PathLike[str]) -> Any:
    return json.loads(Path(path).read_bytes())


def read_jsonl(path: str | os.PathLike[str]) -> list[Any]:
    with Path(path).open("rb") as file:
        return [json.loads(line) for line in file if line.strip()]
