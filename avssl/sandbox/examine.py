"""Try, in a confined process, what it must not be able to do. What is promised is not asked of the kernel but done."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from avssl.sandbox.bounds import Bounds
from avssl.sandbox.child import Child, Reply

_TIME_S = 60.0
TRIED = ("memory", "no-writing", "no-other-files", "no-network", "no-programs", "no-new-files")


def attempts(paths: tuple[str, str], descriptor: int | None) -> Reply:
    """What succeeds of: reading a file of others, making one, connecting, starting a program, taking much memory."""
    foreign, new = (Path(path) for path in paths)

    def connect() -> None:
        with socket.socket() as there:
            there.settimeout(1.0)
            there.connect(("127.0.0.1", 9))

    def take() -> None:
        bytearray(64 << 30)

    def start() -> None:
        subprocess.run([sys.executable, "-c", ""], check=True)

    done = []
    for name, attempt in (
        ("no-other-files", foreign.read_bytes),
        ("no-new-files", new.touch),
        ("no-writing", lambda: new.write_bytes(b"x")),
        ("no-network", connect),
        ("no-programs", start),
        ("memory", take),
    ):
        try:
            attempt()
        except ConnectionRefusedError:  # so there is a network
            done.append(name)
        except (OSError, MemoryError, subprocess.SubprocessError):
            continue
        else:
            done.append(name)
    return done, []


def holds(bounds: Bounds | None) -> dict[str, bool]:
    """For each protection whether it held when it was tried. Raises what `Child` raises where none can start."""
    child = Child(attempts, bounds)
    try:
        child.hear_ready()
        assert child.protections is not None
        with tempfile.TemporaryDirectory() as folder:
            foreign = Path(folder) / "secret"
            foreign.write_bytes(b"secret")
            child.send((str(foreign), os.fspath(Path(folder) / "new")))
            done, _ = child.receive(time.monotonic() + _TIME_S)
        return {name: name not in done for name in TRIED}
    finally:
        child.end()
