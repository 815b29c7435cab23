"""Cross-modal agreement (CMA): which other rows are positives of a row, by both modalities' memories (methods B.5)."""

from __future__ import annotations

import functools
from typing import Literal

import torch
from torch import Tensor

Mode = Literal["consensus", "union", "video", "audio"]


@torch.no_grad()
def mine_positives(
    rows: Tensor,
    video: Tensor,
    audio: Tensor,
    *,
    count: int,
    mode: Mode = "consensus",
    absent: Tensor | None = None,
    tile: int = 8192,
) -> Tensor:
    """The `count` other rows that agree best with each of `rows`, ascending: [C, count] int64.

    Agreement of i and j is min(v_i . v_j, a_i . a_j) (consensus), their max (union), or one of the two. Call it with
    chunks of rows, in any order and on any rank: what is found for a row does not depend on them. Between exactly equal
    agreements any may be taken.

    Args:
        rows: [C] int64 into the banks. video, audio: [N, D] memories, any floating precision, never copied whole.
        absent: [N] bool, rows of the banks that are nobody's positives.
        tile: columns at a time; C x tile agreements are held.
    Raises:
        ValueError: the banks hold fewer than `count` other rows.
    """
    usable = len(video) - (0 if absent is None else int(absent.sum()))
    if count >= usable:
        raise ValueError(f"{count} positives a row need at least {count + 1} rows in the banks, not {usable}")
    banks = [bank for bank, unused in ((video, "audio"), (audio, "video")) if mode != unused]
    queries = [bank[rows].float() for bank in banks]
    best = torch.full((len(rows), count), -torch.inf, device=rows.device)
    found = torch.zeros(len(rows), count, dtype=torch.int64, device=rows.device)
    combine = torch.maximum if mode == "union" else torch.minimum
    for start in range(0, len(video), tile):
        parts = (query @ bank[start : start + tile].float().T for query, bank in zip(queries, banks, strict=True))
        agreement = functools.reduce(combine, parts)
        columns = torch.arange(start, start + agreement.shape[1], device=rows.device)
        hidden = rows[:, None] == columns
        if absent is not None:
            hidden |= absent[start : start + tile]
        agreement.masked_fill_(hidden, -torch.inf)
        best_here, place = agreement.topk(min(count, agreement.shape[1]), dim=1, sorted=False)
        best, kept = torch.cat([best, best_here], 1).topk(count, dim=1, sorted=False)
        found = torch.cat([found, columns[place]], 1).gather(1, kept)
    return found.sort(1).values


def draw_negatives_outside(positives: Tensor, total: int, count: int, generator: torch.Generator) -> Tensor:
    """[B, count] numbers below `total`, uniform with replacement over those that are not among a sample's `positives`.

    Args:
        positives: [B, P] distinct and ascending. The sample itself is drawn too unless it is one of them.
        generator: on the device of `positives`.
    """
    batch, number = positives.shape
    drawn = torch.randint(total - number, (batch, count), generator=generator, device=positives.device)
    # The k-th positive is skipped by all draws that are at least as large as the numbers left below it.
    left_below = positives - torch.arange(number, device=positives.device)
    return drawn + torch.searchsorted(left_below, drawn, right=True)
