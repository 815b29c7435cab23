"""What the demo prints and remembers: numbered steps with their time, and every command as a newcomer would type it."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from avssl.errors import AvsslError


class Log:
    """`steps` and `commands` end up in the report."""

    def __init__(self) -> None:
        self.steps: list[dict[str, Any]] = []
        self.commands: list[dict[str, Any]] = []

    @contextmanager
    def step(self, title: str) -> Iterator[None]:
        """A numbered section; its wall-clock time is printed at its end."""
        number = len(self.steps) + 1
        print(f"\n== {number}. {title}", flush=True)
        start_s = time.monotonic()
        yield
        seconds = time.monotonic() - start_s
        self.steps.append({"number": number, "title": title, "seconds": round(seconds, 1)})
        print(f"   ({seconds:.0f} s)", flush=True)

    def say(self, text: str) -> None:
        print(f"   {text}", flush=True)

    def run(self, command: str, *arguments: str | os.PathLike[str]) -> None:
        """Run a console script that lies beside this Python. Raises AvsslError if it fails, after its own message."""
        script = Path(sys.executable).parent / command
        words = [os.fspath(word) for word in (script, *arguments)]
        shown = shlex.join([_short(words[0]), *words[1:]])
        print(f"   $ {shown}", flush=True)
        start_s = time.monotonic()
        try:
            code = subprocess.run(words).returncode
        except FileNotFoundError:
            raise AvsslError(f"{script}: no such command; run make install") from None
        if code:
            raise AvsslError(f"{command} ended with exit code {code}; its message is above")
        self.commands.append({"command": shown, "seconds": round(time.monotonic() - start_s, 1)})


def _short(path: str) -> str:
    """Relative to the current folder if it is below it."""
    try:
        return str(Path(path).relative_to(Path.cwd()))
    except ValueError:
        return path
