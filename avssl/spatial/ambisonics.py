"""Ambisonic sound of any order: encode, rotate, mirror, listen in a direction.

Inside, channels [..., C, S] are real spherical harmonics in ACN order with SN3D normalisation (ambiX): W, Y, Z, X for
the first order, C = (order + 1)². Directions and rotations are those of `avssl.spatial.directions`.
"""

from __future__ import annotations

import functools
import math

import torch
from torch import Tensor

from avssl.errors import UsageError


def order_of(channels: int) -> int:
    """The order that so many channels are of. Raises UsageError unless it is a square."""
    order = math.isqrt(max(channels, 0)) - 1
    if order < 0 or (order + 1) ** 2 != channels:
        raise UsageError(
            f"ambisonics: {channels} channels are no whole order (1, 4, 9, 16, …); convert them with "
            "avssl.spatial.formats.to_ambix, which needs to be told what they are"
        )
    return order


def harmonics(direction: Tensor, order: int = 1) -> Tensor:
    """Real spherical harmonics [..., (order + 1)²] of unit vectors [..., 3]; ACN, SN3D, no Condon-Shortley phase.

    Polynomials in x, y, z, so gradients are finite everywhere, the poles included. First order: 1, y, z, x.
    """
    if order < 0:
        raise UsageError(f"ambisonics: the order is {order}; it must be 0 or more")
    x, y, z = direction.unbind(-1)
    found: list[Tensor] = [torch.empty(0)] * (order + 1) ** 2
    cosine, sine = torch.ones_like(x), torch.zeros_like(x)  # real and imaginary part of (x + iy)^m
    for m in range(order + 1):
        before, now = torch.zeros_like(z), torch.full_like(z, _odd_factorial(m))  # P_n^m(z) / (x² + y²)^(m/2)
        for n in range(m, order + 1):  # the degree
            norm = math.sqrt((2 if m else 1) * math.factorial(n - m) / math.factorial(n + m))
            found[n * (n + 1) + m] = norm * now * cosine
            if m:
                found[n * (n + 1) - m] = norm * now * sine
            before, now = now, ((2 * n + 1) * z * now - (n + m) * before) / (n + 1 - m)
        cosine, sine = x * cosine - y * sine, x * sine + y * cosine
    return torch.stack(found, -1)


def encode(mono: Tensor, direction: Tensor, order: int = 1) -> Tensor:
    """Mono sound [..., S] coming from unit vectors [..., 3], or [..., S, 3] where it moves -> [..., C, S]."""
    gains = harmonics(direction, order)
    gains = gains[..., None] if direction.ndim == mono.ndim else gains.movedim(-1, -2)
    return gains * mono[..., None, :]


def rotation_matrix(rotation: Tensor, order: int = 1) -> Tensor:
    """What rotates channels: [..., C, C] for rotations [..., 3, 3], with one block a degree.

    Turning a plane wave turns its direction: M harmonics(d) = harmonics(R d) for every d, and enough directions
    determine each block, up to rounding. That of degree 1 is R itself with its axes in the order Y, Z, X.
    """
    matrix = rotation.new_zeros(*rotation.shape[:-2], (order + 1) ** 2, (order + 1) ** 2)
    matrix[..., 0, 0] = 1
    if order >= 1:
        axes = torch.tensor([1, 2, 0], device=rotation.device)
        matrix[..., 1:4, 1:4] = rotation.index_select(-1, axes).index_select(-2, axes)
    if order >= 2:
        directions, inverse = (table.to(rotation) for table in _probes(order))
        turned = harmonics(directions @ rotation.mT, order)
        for degree in range(2, order + 1):
            band = slice(degree**2, (degree + 1) ** 2)
            matrix[..., band, band] = turned[..., band].mT @ inverse[band].mT
    return matrix


def rotate(sound: Tensor, rotation: Tensor) -> Tensor:
    """Turn the whole scene [..., C, S] by rotations [..., 3, 3] (leading dimensions broadcast)."""
    return rotation_matrix(rotation.to(sound), order_of(sound.shape[-2])) @ sound


def mirror(sound: Tensor) -> Tensor:
    """Swap left and right of the scene [..., C, S]: the sign of every harmonic that is odd in Y (first order: Y)."""
    return sound * mirror_signs(order_of(sound.shape[-2])).to(sound)[:, None]


def mirror_signs(order: int) -> Tensor:
    """[(order + 1)²] of 1 and -1."""
    return torch.tensor([1.0 if m >= 0 else -1.0 for n in range(order + 1) for m in range(-n, n + 1)])


def project(sound: Tensor, direction: Tensor) -> Tensor:
    """Listen to scenes [..., C, S] in directions [..., K, 3] -> [..., K, S].

    The sum of the channels by their harmonics there: W + Y sin φ cos ν + Z sin ν + X cos φ cos ν for the first order
    (methods C.4), a cardioid of gain 2 ahead and 0 behind; order + 1 ahead for higher ones.
    """
    return harmonics(direction.to(sound), order_of(sound.shape[-2])) @ sound


def _odd_factorial(m: int) -> float:
    """1 · 3 · 5 … (2m - 1)."""
    return float(math.prod(range(1, 2 * m, 2)))


@functools.lru_cache(maxsize=8)
def _probes(order: int) -> tuple[Tensor, Tensor]:
    """Evenly spread directions [D, 3] and the pseudo-inverse [C, D] of each degree's harmonics there; float64."""
    count = 4 * (order + 1) ** 2
    number = torch.arange(count, dtype=torch.float64)
    z = 1 - (2 * number + 1) / count
    turn = number * (math.pi * (3 - math.sqrt(5)))
    level = (1 - z * z).sqrt()
    directions = torch.stack([level * turn.cos(), level * turn.sin(), z], -1)
    table = harmonics(directions, order)
    bands = [torch.linalg.pinv(table[:, n * n : (n + 1) ** 2]) for n in range(order + 1)]
    return directions, torch.cat(bands)
