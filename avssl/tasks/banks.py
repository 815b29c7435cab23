"""The two memory banks of a task: replicated, or split over the ranks; moments of the scores of their pairs."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from avssl.objectives.bank import MemoryBank, ShardedMemoryBank
from avssl.objectives.weights import pair_scores, score_sums
from avssl.tasks.base import Ranks
from avssl.tasks.xid_config import XIDConfig

CHUNK_ROWS = 16384  # of a bank are looked at at once


class SavedShards(ShardedMemoryBank):
    """A sharded bank whose state dict holds the whole bank, under the name that a replicated bank gives it.

    A run may so be continued with another number of ranks or without sharding. All ranks make the state dict together;
    only that of rank 0 has the rows.
    """

    def __init__(self, rows: int, dim: int, *, ranks: Ranks, **settings: Any):
        super().__init__(rows, dim, rank=ranks.rank, size=ranks.size, **settings)
        self.ranks = ranks
        self._non_persistent_buffers_set.add("shard")

    @property
    def memory(self) -> Tensor:
        """The part of this rank, under the name of the whole."""
        return self.shard

    @torch.no_grad()
    def read(self, rows: Tensor, ranks: Any = None) -> Tensor:
        return super().read(rows, self.ranks)

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        destination[f"{prefix}memory"] = self.whole(self.ranks)

    def _load_from_state_dict(
        self,
        state_dict: Any,
        prefix: str,
        local_metadata: Any,
        strict: bool,
        missing_keys: list[str],
        unexpected_keys: list[str],
        error_msgs: list[str],
    ) -> None:
        whole, key = state_dict.get(f"{prefix}memory"), f"{prefix}memory"
        expected = (self.borders[-1], self.shard.shape[1])
        if whole is None:
            missing_keys.append(key)
        elif whole.shape != expected:
            error_msgs.append(f"size mismatch for {key}: {tuple(whole.shape)} in the state, {expected} here.")
        else:
            self.take(whole)


Bank = MemoryBank | SavedShards


def make_bank(config: XIDConfig, rows: int, dim: int, *, seed: int, ranks: Ranks | None) -> Bank:
    """A bank of random unit vectors. `ranks` is needed where it is sharded."""
    settings: dict[str, Any] = {
        "momentum": config.bank_momentum,
        "seed": seed,
        "dtype": getattr(torch, config.bank_dtype),
    }
    if not config.bank_sharded:
        return MemoryBank(rows, dim, **settings)
    if ranks is None:
        raise ValueError("a sharded bank needs the ranks it is split over")
    return SavedShards(rows, dim, ranks=ranks, **settings)


@torch.no_grad()
def pair_sums(video: Bank, audio: Bank, usable: Tensor, ranks: Ranks) -> Tensor:
    """`score_sums` [3] of the pairs of all `usable` rows, each rank looking at a part of them."""
    if isinstance(video, SavedShards) and isinstance(audio, SavedShards):
        here = usable[(usable >= video.first) & (usable < video.first + len(video.shard))] - video.first
    else:
        here = usable[len(usable) * ranks.rank // ranks.size : len(usable) * (ranks.rank + 1) // ranks.size]
    sums = torch.zeros(3, dtype=torch.float64, device=usable.device)
    for rows in here.split(CHUNK_ROWS):
        if len(rows):
            sums += score_sums(pair_scores(video.memory[rows], audio.memory[rows]))
    return ranks.sum(sums)
