"""Messages between a process and its confined child: JSON and raw bytes, never pickles.

Who reads a pickle runs what is in it; a child whose decoder was taken over must not have that way out. A message is the
length of its head, the head (JSON: a value, and the sizes of the parts), and the parts. An open file may go with it.
"""

from __future__ import annotations

import json
import os
import socket
import struct
import time
from collections.abc import Sequence
from typing import Any

_LENGTH = struct.Struct(">I")
_MOST_HEAD_BYTES = 16 << 20
_MOST_PARTS = 64


class WireError(Exception):
    """The other side has gone, took too long, or does not keep to the form."""


def send(to: socket.socket, head: Any, parts: Sequence[bytes | memoryview] = (), descriptor: int | None = None) -> None:
    """Send a message; raises OSError if the other side has gone. The open file `descriptor` stays open here."""
    views = [view.cast("B") if (view := memoryview(part)).nbytes else memoryview(b"") for part in parts]
    text = json.dumps({"value": head, "sizes": [view.nbytes for view in views]}).encode()
    front = _LENGTH.pack(len(text))
    if descriptor is None:
        to.sendall(front)
    else:
        sent = socket.send_fds(to, [front], [descriptor])
        to.sendall(front[sent:])
    to.sendall(text)
    for view in views:
        to.sendall(view)


def receive(
    source: socket.socket, *, deadline_s: float | None = None, most_bytes: int = 1 << 40
) -> tuple[Any, list[bytearray]]:
    """The value and the parts of the next message, of `most_bytes` in all at most.

    Raises WireError where there will be none, none until `deadline_s` of the monotonic clock, or no proper one.
    """
    return _receive(source, bytes(_take(source, _LENGTH.size, deadline_s)), deadline_s, most_bytes)


def receive_with_file(source: socket.socket) -> tuple[Any, list[bytearray], int | None]:
    """`receive`, and the open file that came with the message. For the child, which trusts its parent."""
    front, descriptors, _, _ = socket.recv_fds(source, _LENGTH.size, 1)
    if not front:
        raise WireError("the other side has gone")
    front += bytes(_take(source, _LENGTH.size - len(front), None))
    value, parts = _receive(source, front, None, 1 << 40)
    return value, parts, descriptors[0] if descriptors else None


def _receive(
    source: socket.socket, front: bytes, deadline_s: float | None, most_bytes: int
) -> tuple[Any, list[bytearray]]:
    (length,) = _LENGTH.unpack(front)
    if length > _MOST_HEAD_BYTES:
        raise WireError("a message's head is too long")
    try:
        head = json.loads(bytes(_take(source, length, deadline_s)))
        value, sizes = head["value"], head["sizes"]
        proper = len(sizes) <= _MOST_PARTS and all(type(size) is int and size >= 0 for size in sizes)
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise WireError("a message has no proper head") from error
    if not proper or sum(sizes) > most_bytes:
        raise WireError("a message has too many parts or bytes")
    return value, [_take(source, size, deadline_s) for size in sizes]


def _take(source: socket.socket, count: int, deadline_s: float | None) -> bytearray:
    """The next `count` bytes."""
    data = bytearray(count)
    view, done = memoryview(data), 0
    while done < count:
        if deadline_s is not None:
            left_s = deadline_s - time.monotonic()
            if left_s <= 0:
                raise TimeoutError
            source.settimeout(left_s)
        try:
            got = source.recv_into(view[done:])
        except ConnectionError:
            got = 0
        if not got:
            raise WireError("the other side has gone")
        done += got
    return data


def pair() -> tuple[socket.socket, socket.socket]:
    """Two connected ends, neither of which other programs inherit."""
    ours, theirs = socket.socketpair()
    for end in (ours, theirs):
        os.set_inheritable(end.fileno(), False)
    return ours, theirs
