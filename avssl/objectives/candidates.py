"""Which of the shown targets are candidates of which query."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Columns(NamedTuple):
    """What the columns of a score matrix [B, J] are to its queries.

    positive: [B] int64, the column of each query's own partner. It is always a candidate.
    rows, query_rows: [J] and [B], the rows of the data set that shared candidates and queries show. A column that shows
        the query's own row a second time is no negative of it. None: no column does.
    absent: [J] bool, columns that are no candidate of anyone else (rows without sound, rows that are not used).
    """

    positive: Tensor
    rows: Tensor | None = None
    query_rows: Tensor | None = None
    absent: Tensor | None = None

    def hidden(self, start: int, stop: int) -> Tensor | None:
        """[B, stop - start] bool: those of the columns `start` to `stop` that are taken out; None where none is."""
        mask = None
        if self.rows is not None and self.query_rows is not None:
            mask = self.query_rows[:, None] == self.rows[None, start:stop]
        if self.absent is not None:
            absent = self.absent[None, start:stop]
            mask = absent.repeat(len(self.positive), 1) if mask is None else mask | absent
        return None if mask is None else fill_own(mask, self.positive - start, False)

    def of(self, queries: slice) -> Columns:
        """The same for some of the queries."""
        query_rows = None if self.query_rows is None else self.query_rows[queries]
        return self._replace(positive=self.positive[queries], query_rows=query_rows)


def fill_own(part: Tensor, positive: Tensor, value: float | bool) -> Tensor:
    """Write `value` to the own column of each query, in place, where it lies in this part [B, W] of the columns.

    Args:
        positive: [B] int64, counted from the part's first column; below 0 or at least W where it lies elsewhere.
    """
    width = part.shape[1]
    if width == 0:
        return part
    column = positive.clamp(0, width - 1)[:, None]
    inside = ((positive >= 0) & (positive < width))[:, None]
    old = part.gather(1, column)
    return part.scatter_(1, column, torch.where(inside, torch.full_like(old, value), old))
