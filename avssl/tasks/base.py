"""What the training loop expects of a task, and what a task may ask of the ranks it runs on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, TypedDict

from torch import Tensor, nn

Batch = dict[str, Tensor]


class Ranks(Protocol):
    """The processes that share a global batch. Rank r holds the r-th contiguous part of it.

    `avssl.training.distributed` implements it; tasks never see how ranks are launched. All ranks call alike.
    """

    rank: int
    size: int

    def counts(self, n: int) -> list[int]:
        """Each rank's `n`, in rank order. Parts differ in size where bad samples were skipped; 0 is possible."""

    def gather(self, part: Tensor, counts: Sequence[int]) -> Tensor:
        """The parts [n_r, ...] of all ranks, concatenated in global sample order; gradients flow back to each."""

    def exchange(self, part: Tensor, counts: Sequence[int]) -> Tensor:
        """Send the first `counts[0]` entries of `part` [n, ...] to rank 0, the next `counts[1]` to rank 1, and so on.

        Returns what the ranks sent here, concatenated in rank order; without gradient.
        """

    def sum(self, value: Tensor) -> Tensor:
        """The sum over ranks, without gradient."""


class TaskOutput(TypedDict):
    """What `Task.forward` returns.

    loss: scalar whose *mean over ranks* is the loss of the global batch (so that gradients averaged over ranks are
        those of one process): the local sum, divided by the global count, times the number of ranks.
    metrics: scalars of the global batch, equal on all ranks, without gradient; `loss` among them.
    memory: tensors that `after_step` needs, without gradient.
    """

    loss: Tensor
    metrics: dict[str, Tensor]
    memory: dict[str, Tensor]


class Task(Protocol):
    """A module that owns a model and its objective. Its state dict is all that a checkpoint needs of it.

    rows: of the manifest. usable: the rows that samples come from, ascending (None: all). seed: of whatever starts
    random. steps_per_pass: optimiser steps that see as many samples as there are usable rows; the attribute is set
    before `enter`, as a phase may have another batch size. ranks: as `forward` gets
    them, for what is split over them from the start.
    """

    model: nn.Module
    steps_per_pass: float

    def __init__(
        self,
        config: Any,
        model: nn.Module,
        *,
        rows: int,
        usable: Tensor | None,
        seed: int,
        steps_per_pass: float,
        ranks: Ranks,
    ): ...

    def enter(self, config: Any) -> None:
        """A later phase begins, with other settings: keep the model and what was learned about rows, add what the new
        settings need. Called before `load_state_dict` where a run continues in a later phase. Parameters stay those
        of the constructor unless `ConfigError` says that the change is not possible."""

    def before_step(self, step_in_phase: int, ranks: Ranks) -> None:
        """Called once before each optimiser step; `step_in_phase` counts the phase's steps from 0."""

    def forward(self, batch: Batch, *, ranks: Ranks, seed: int) -> TaskOutput:
        """Loss of a prepared batch. `seed` belongs to the (micro-)step and is the same on all ranks."""

    def after_step(self, memories: list[dict[str, Tensor]], ranks: Ranks) -> None:
        """Called once after each optimiser step with the `memory` of its micro-batches, in order."""
