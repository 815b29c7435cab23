"""Process a signal of any length in overlapping windows, with memory that does not depend on its duration.

Neighbouring results are cross-faded over the overlap by a raised cosine, sin² against cos²: the weights sum to 1 at
every sample, so that what does not change in a window does not change at all. With an overlap of half a window that is
the Hann window. At the very first and last sample there is nothing to fade to and the weight is 1.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from avssl.errors import ConfigError, UsageError


@dataclass(frozen=True)
class Chunking:
    """window, overlap: samples. The defaults are 2 s at 32 kHz, half overlapped; overlap 0 is USS's own way, which
    leaves a seam at every border and takes half as long."""

    window: int = 64000
    overlap: int = 32000

    def __post_init__(self):
        if self.window < 1 or not 0 <= self.overlap <= self.window // 2:
            raise ConfigError(
                f"chunking: overlap {self.overlap} of windows of {self.window}; give 0 to {max(self.window // 2, 0)}"
            )

    @property
    def hop(self) -> int:
        return self.window - self.overlap

    def latency(self, batch: int = 1) -> int:
        """Samples that must have come in before the first of them can go out; never more later on."""
        return self.window + (batch - 1) * self.hop

    def fade_in(self) -> Tensor:
        """[overlap] float32: sin² from 0 to 1; a window fades in by it, the one before fades out by 1 minus it."""
        phase = (torch.arange(self.overlap, dtype=torch.float64) + 0.5) / max(self.overlap, 1)
        return torch.sin(math.pi / 2 * phase).square().float()


Process = Callable[[Tensor], Tensor]


def stream(
    blocks: Iterable[Tensor], process: Process, chunking: Chunking | None = None, *, batch: int = 1
) -> Iterator[Tensor]:
    """Results for a signal that comes in blocks [..., n] of any lengths, as soon as they are final.

    process: windows [N, ..., window] -> results [N, ..., window]; it may change or add axes between first and last
    (several sources of one mixture), and sees at most `batch` windows at once. The last window is filled with zeros.
    What is yielded has in sum as many samples as came in. Latency: `chunking.latency(batch)`; held in memory: no more
    than that and a block.
    """
    chunking = chunking or Chunking()
    rise = chunking.fade_in()
    tail: Tensor | None = None  # faded out, waiting for the window that overlaps it
    group: list[tuple[Tensor, int | None]] = []
    for window, end in cut_windows(blocks, chunking):
        group.append((window, end))
        if len(group) < batch and end is None:
            continue
        results = process(torch.stack([samples for samples, _ in group]))
        if results.shape[0] != len(group) or results.shape[-1] != chunking.window:
            raise UsageError(
                f"overlap-add: {len(group)} windows of {chunking.window} became {tuple(results.shape)}; "
                "the first and the last axis must stay"
            )
        for result, (_, end) in zip(results, group, strict=True):
            rise = rise.to(result)
            if tail is not None:
                begin = result[..., : chunking.overlap] * rise + tail
                result = torch.cat([begin, result[..., chunking.overlap :]], dim=-1)
            if end is not None:
                yield result[..., :end]
                return
            tail = result[..., chunking.hop :] * (1 - rise)
            yield result[..., : chunking.hop]
        group = []


def overlap_add(waveform: Tensor, process: Process, chunking: Chunking | None = None, *, batch: int = 1) -> Tensor:
    """The whole of `stream` for one signal [..., S] in memory. Raises UsageError for an empty signal."""
    if waveform.shape[-1] == 0:
        raise UsageError("overlap-add: the signal is empty; give at least one sample")
    return torch.cat(list(stream([waveform], process, chunking, batch=batch)), dim=-1)


def cut_windows(blocks: Iterable[Tensor], chunking: Chunking) -> Iterator[tuple[Tensor, int | None]]:
    """Windows in order; the last comes with the number of its samples that are signal, the others with None."""
    held: Tensor | None = None
    for block in blocks:
        held = block if held is None else torch.cat([held, block], dim=-1)
        # Kept until more is there: whether a window is the last is known only then.
        while held.shape[-1] > chunking.window:
            yield held[..., : chunking.window], None
            held = held[..., chunking.hop :]
        held = held.clone()  # a view would keep the whole block
    if held is not None and held.shape[-1]:
        yield F.pad(held, (0, chunking.window - held.shape[-1])), held.shape[-1]
