"""Positives by agreement within a task: mined whole when a phase begins, later a block of rows a step."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn

from avssl.objectives.agreement import mine_positives
from avssl.tasks.base import Ranks
from avssl.tasks.xid_config import AgreementConfig

BLOCK_ROWS = 1024  # of all ranks together are mined in one step, or more where the period would be too short


class Mining(nn.Module):
    """The mined rows of each row (methods B.5).

    A later mining goes on beside training: every step one block of rows, into `building`, which takes the place of
    `positives` when it is whole. Where a mining stands follows from the number of the step, so that these two tables
    are all of its state.

    Args:
        rows: of the manifest. steps_per_pass: optimiser steps.
    """

    positives: Tensor  # [rows, P] int32, ascending; zeros for rows without use
    building: Tensor

    def __init__(self, config: AgreementConfig, rows: int, steps_per_pass: float):
        super().__init__()
        self.config = config
        self.period = max(1, round(config.every_passes * steps_per_pass))
        """Steps from the start of one mining to that of the next."""
        for name in ("positives", "building"):
            self.register_buffer(name, torch.zeros(rows, config.positives, dtype=torch.int32))

    def before_step(
        self,
        step: int,
        video: Tensor,
        audio: Tensor,
        *,
        usable: Tensor,
        absent: Tensor | None,
        ranks: Ranks,
    ) -> None:
        """Mine what is due before the phase's step number `step` in the banks [N, D]: for the rows `usable` [U],
        ascending, never finding rows that are `absent` [N]."""
        block = max(BLOCK_ROWS, -(-len(usable) // self.period))
        if step == 0:
            starts = list(range(0, len(usable), block))
        else:
            starts = [step % self.period * block] if step >= self.period else []
        for start in starts:
            rows = usable[start : start + block]
            if len(rows):
                self.building[rows] = self._found(rows, video, audio, absent, ranks).to(self.building.dtype)
                if start + block >= len(usable):
                    self.positives.copy_(self.building)

    def _found(self, rows: Tensor, video: Tensor, audio: Tensor, absent: Tensor | None, ranks: Ranks) -> Tensor:
        """The positives of a block of rows, each rank looking for those of a part of it."""
        borders = [len(rows) * number // ranks.size for number in range(ranks.size + 1)]
        part = rows[borders[ranks.rank] : borders[ranks.rank + 1]]
        found = mine_positives(part, video, audio, count=self.config.positives, mode=self.config.mode, absent=absent)
        return ranks.gather(found, [stop - start for start, stop in pairwise(borders)])
