"""Permutations of very many numbers, one entry at a time: no table, any position at once."""

from __future__ import annotations

import math

import numpy as np

_ROUNDS = 8
_MASK = (1 << 64) - 1


class Shuffle:
    """A pseudo-random permutation of 0..n-1 that is computed, not stored: `shuffle[position]`.

    A Feistel network over the pairs (left, right) of a grid of about sqrt(n) by sqrt(n), keyed by the seed; a value
    outside 0..n-1 is sent through again until one inside comes out (Black and Rogaway, Ciphers with arbitrary finite
    domains, 2002).
    """

    def __init__(self, n: int, seed: np.random.SeedSequence):
        self.n = n
        self._lefts = math.isqrt(n - 1) + 1
        self._rights = -(-n // self._lefts)
        self._keys = [int(key) for key in seed.generate_state(_ROUNDS, np.uint64)]

    def __getitem__(self, position: int) -> int:
        if not 0 <= position < self.n:
            raise IndexError(f"position {position} of a permutation of {self.n}")
        value = self._once(position)
        while value >= self.n:
            value = self._once(value)
        return value

    def _once(self, value: int) -> int:
        left, right = divmod(value, self._rights)
        for number, key in enumerate(self._keys):
            if number % 2:
                right = (right + _mixed(left + key)) % self._rights
            else:
                left = (left + _mixed(right + key)) % self._lefts
        return left * self._rights + right


def number_below(n: int, seed: np.random.SeedSequence) -> int:
    """One number of 0..n-1; all alike up to n / 2**64."""
    return int(seed.generate_state(1, np.uint64)[0]) % n


def _mixed(value: int) -> int:
    """The finaliser of SplitMix64: every bit of the value moves every bit of the answer."""
    value &= _MASK
    value = (value ^ (value >> 30)) * 0xBF58476D1CE4E5B9 & _MASK
    value = (value ^ (value >> 27)) * 0x94D049BB133111EB & _MASK
    return value ^ (value >> 31)
