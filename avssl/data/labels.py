"""Weak labels: which classes a row is said to hold, somewhere in it, as numbers of a list of classes."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping

import numpy as np

from avssl.config import nearest
from avssl.errors import ConfigError
from avssl.shards import ShardSet

UNLABELLED = -1  # the drawn class of a row that has none


class Labels:
    """The classes of every row of a shard set.

    column: `label`, or a column of the list that the shards were built from, which holds a name or a list of names.
    numbers: class number by name; several names may mean one class. Case, and `_` for a space, do not matter.
    Raises ConfigError if no row has any of the classes.
    """

    def __init__(self, shards: ShardSet, column: str, numbers: Mapping[str, int]):
        self.column = column
        self.count = 1 + max(numbers.values())
        """Number of classes."""
        self.unknown: Counter[str] = Counter()
        """Labels that name none of the classes, and how many rows have them."""
        plain = {_plain(name): number for name, number in numbers.items()}
        self.sha256 = hashlib.sha256(repr(sorted(plain.items())).encode()).hexdigest()
        self._of_row = [self._numbers(shards.record(row), plain) for row in range(len(shards))]
        self.known = np.array([bool(found) for found in self._of_row], bool)
        """[rows] whether a row has any of the classes."""
        if not self.known.any():
            example = next(iter(self.unknown), None)
            hint = f"its labels are such as {example!r}; {nearest(example, numbers)}" if example else "it has no labels"
            raise ConfigError(f"data.labels is {column!r}, but no row is labelled with a class of the model: {hint}")

    def of(self, row: int) -> tuple[int, ...]:
        """The classes of a row, ascending."""
        return self._of_row[row]

    def target(self, row: int) -> np.ndarray:
        """[count] float32: 1 for the classes of the row."""
        target = np.zeros(self.count, np.float32)
        target[list(self.of(row))] = 1
        return target

    def by_class(self, rows: np.ndarray) -> dict[int, np.ndarray]:
        """Of `rows`, those of each class that any of them has, by ascending class."""
        members: dict[int, list[int]] = {}
        for row in rows.tolist():
            for number in self.of(row):
                members.setdefault(number, []).append(row)
        return {number: np.array(members[number]) for number in sorted(members)}

    def _numbers(self, record: dict, plain: Mapping[str, int]) -> tuple[int, ...]:
        value = record["label"] if self.column == "label" else record["meta"].get(self.column)
        names = [] if value is None else value if isinstance(value, list) else [value]
        found = set()
        for name in map(str, names):
            if (number := plain.get(_plain(name))) is None:
                self.unknown[name] += 1
            else:
                found.add(number)
        return tuple(sorted(found))


def _plain(name: str) -> str:
    return name.strip().replace("_", " ").casefold()
