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
    """A module that owns a model and its objective. Its state dict is all that a checkpoint needs of it."""

    model: nn.Module

    def __init__(self, config: Any, model: nn.Module, *, rows: int, usable: Tensor | None, seed: int): ...

    def forward(self, batch: Batch, *, ranks: Ranks, seed: int) -> TaskOutput:
        """Loss of a prepared batch. `seed` belongs to the (micro-)step and is the same on all ranks."""

    def after_step(self, memories: list[dict[str, Tensor]], ranks: Ranks) -> None:
        """Called once after each optimiser step with the `memory` of its micro-batches, in order."""
