"""Damage of bytes, drawn from a seed: cuts, flips, numbers that lie, pieces moved, doubled or taken from elsewhere."""

from __future__ import annotations

import random
from collections.abc import Callable

_ODD = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x7FFF_FFFF, 0x8000_0000, 0xFFFF_FFFF)


def mutated(data: bytes, draw: random.Random) -> bytes:
    """`data` after one to six mutations."""
    damaged = bytearray(data)
    for _ in range(draw.randint(1, 6)):
        draw.choice(_KINDS)(damaged, draw)
    return bytes(damaged)


def _flip(data: bytearray, draw: random.Random) -> None:
    for _ in range(draw.randint(1, 16)):
        if data:
            data[_place(data, draw)] ^= 1 << draw.randrange(8)


def _lie(data: bytearray, draw: random.Random) -> None:
    """A number of 1, 2, 4 or 8 bytes becomes one at an edge."""
    width = draw.choice((1, 2, 4, 8))
    value = draw.choice(_ODD) & (1 << 8 * width) - 1
    at = _place(data, draw)
    data[at : at + width] = value.to_bytes(width, draw.choice(("big", "little")))


def _cut(data: bytearray, draw: random.Random) -> None:
    del data[_place(data, draw) :]


def _remove(data: bytearray, draw: random.Random) -> None:
    at = _place(data, draw)
    del data[at : at + draw.randint(1, 64)]


def _double(data: bytearray, draw: random.Random) -> None:
    at, length = _place(data, draw), draw.randint(1, 4096)
    data[at:at] = data[at : at + length]


def _move(data: bytearray, draw: random.Random) -> None:
    at, to, length = _place(data, draw), _place(data, draw), draw.randint(1, 256)
    data[to : to + length] = data[at : at + length]


def _noise(data: bytearray, draw: random.Random) -> None:
    at, length = _place(data, draw), draw.randint(1, 512)
    data[at : at + length] = draw.randbytes(length)


def _place(data: bytearray, draw: random.Random) -> int:
    """Anywhere, but half of the time in the first kilobyte or the last, where headers and tables are."""
    if not data:
        return 0
    length = len(data)
    if draw.random() < 0.5:
        return draw.randrange(length)
    near = draw.randrange(min(1024, length))
    return near if draw.random() < 0.6 else length - 1 - near


_KINDS: tuple[Callable[[bytearray, random.Random], None], ...] = (
    _flip, _flip, _lie, _lie, _lie, _cut, _remove, _double, _move, _noise,
)  # fmt: skip
