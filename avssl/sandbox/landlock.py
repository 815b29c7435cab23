"""Linux: no files but those below some folders, to be read only; no TCP (Landlock, kernel 5.13 and later)."""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Iterable

_CREATE, _ADD_RULE, _RESTRICT = 444, 445, 446  # numbers of the calls, the same on all machines
_ASK_VERSION, _PATH_BENEATH = 1, 1
_READ_FILE, _READ_FOLDER = 1 << 2, 1 << 3
_ALL_OF_FILES = {1: (1 << 13) - 1, 2: (1 << 14) - 1, 3: (1 << 15) - 1, 4: (1 << 15) - 1, 5: (1 << 16) - 1}
_TCP = 3  # binding and connecting, since version 4
_SIGNALS_AND_SOCKETS = 3  # to processes outside and to abstract sockets, since version 6


def version() -> int:
    """The kernel's version of Landlock; 0 where there is none."""
    return max(0, _call(_CREATE, None, ctypes.c_size_t(0), ctypes.c_uint(_ASK_VERSION)))


def read_only(folders: Iterable[str]) -> None:
    """From now on this thread, and those it starts, can open files below `folders` for reading and no others.

    What is open already stays so. Raises OSError where the kernel refuses.
    """
    found = version()
    if found == 0:
        raise OSError(ctypes.get_errno(), "this kernel has no Landlock")
    handled = _ALL_OF_FILES[min(found, 5)]
    rules = struct.pack("=QQQ", handled, _TCP if found >= 4 else 0, _SIGNALS_AND_SOCKETS if found >= 6 else 0)
    size = 24 if found >= 6 else 16 if found >= 4 else 8
    ruleset = _call(_CREATE, rules, ctypes.c_size_t(size), ctypes.c_uint(0))
    if ruleset < 0:
        raise OSError(ctypes.get_errno(), "Landlock is refused")
    try:
        for folder in folders:
            _allow(ruleset, folder)
        if _call(_RESTRICT, ctypes.c_int(ruleset), ctypes.c_uint(0)):
            raise OSError(ctypes.get_errno(), "Landlock is refused")
    finally:
        os.close(ruleset)


def _allow(ruleset: int, path: str) -> None:
    try:
        descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:  # not there: nothing to allow
        return
    try:
        is_folder = os.path.isdir(path)  # noqa: PTH112 - before the media are touched, every import counts
        rule = struct.pack("=Qi", _READ_FILE | (_READ_FOLDER if is_folder else 0), descriptor)
        if _call(_ADD_RULE, ctypes.c_int(ruleset), ctypes.c_uint(_PATH_BENEATH), rule, ctypes.c_uint(0)):
            raise OSError(ctypes.get_errno(), f"Landlock does not take {path}")
    finally:
        os.close(descriptor)


def _call(number: int, *arguments: object) -> int:
    return ctypes.CDLL(None, use_errno=True).syscall(ctypes.c_long(number), *arguments)
