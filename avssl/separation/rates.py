"""Signals of one rate at another, also while they come in: without seams or drift, and back at the same length."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from fractions import Fraction

import torch
from torch import Tensor

from avssl import compat
from avssl.errors import UsageError

_LARGEST_RATIO = 1500  # terms of the ratio of rates: 11,025 to 32,000 Hz is 441 to 1280; more needs large filters
_REACH = 72  # periods of the lower rate that the filter looks around it
_BLOCK = 2**16  # samples of a whole signal at once: the filter needs some hundred times their memory
# Kaiser-windowed sinc of 64 zero crossings: passes up to 0.9 of the lower half rate, and holds back 120 dB above it.
_FILTER = {
    "lowpass_filter_width": 64,
    "rolloff": 0.9475937167399596,
    "resampling_method": "sinc_interp_kaiser",
    "beta": 14.769656459379492,
}


class Converter:
    """From one rate to another: n samples become ceil(n * to / from).

    For an odd rate the ratio is rounded by less than 0.1 %: what is heard at the other rate is that much too high or
    low, and the way back, `Converter(to_hz, from_hz)`, undoes it exactly. Raises UsageError for an absurd rate.
    """

    def __init__(self, from_hz: int, to_hz: int):
        for rate_hz in (from_hz, to_hz):
            if not 1000 <= rate_hz <= 768_000 or rate_hz != int(rate_hz):
                raise UsageError(f"a rate of {rate_hz} Hz is not accepted; give a whole number of 1000 to 768000")
        # Rounded the same way in both directions.
        ratio = Fraction(int(max(from_hz, to_hz)), int(min(from_hz, to_hz))).limit_denominator(_LARGEST_RATIO)
        high, low = ratio.numerator, ratio.denominator
        self._p, self._q = (high, low) if from_hz > to_hz else (low, high)
        self._context = self._p * -(-_REACH // min(self._p, self._q))
        self.lag_s = 0.0 if self._p == self._q else (self._context + self._p) / from_hz
        """How much later a sample goes out at most than it came in, beside the lengths of the blocks."""
        self._resample: torch.nn.Module | None = None
        if self._p != self._q:
            self._resample = compat.torchaudio().transforms.Resample(self._p, self._q, **_FILTER)

    def whole(self, x: Tensor) -> Tensor:
        """[..., n] -> [..., ceil(n * to / from)]; there is at least one sample."""
        return torch.cat(list(self.stream(x.split(_BLOCK, dim=-1))), dim=-1)

    def stream(self, blocks: Iterable[Tensor]) -> Iterator[Tensor]:
        """`whole` for a signal that comes in blocks [..., n], as soon as possible."""
        if self._resample is None:
            yield from blocks
            return
        held: Tensor | None = None  # from `context` before the next sample on, once it is long enough
        started = False
        for block in blocks:
            held = block if held is None else torch.cat([held, block], dim=-1)
            if not started and held.shape[-1] > self._context:
                held, started = _continued(held, self._context, 0), True
            ready = (held.shape[-1] - 2 * self._context) // self._p if started else 0
            if ready > 0:
                yield self._convert(held[..., : ready * self._p + 2 * self._context], ready * self._q)
                held = held[..., ready * self._p :].clone()  # a view would keep the whole block
        if held is None or not held.shape[-1]:
            return
        if not started:
            held = _continued(held, self._context, 0)
        left = held.shape[-1] - self._context
        if left:
            yield self._convert(_continued(held, 0, self._context + -left % self._p), -(-left * self._q // self._p))

    def _convert(self, x: Tensor, samples: int) -> Tensor:
        """The `samples` results after the context at the beginning of x."""
        assert self._resample is not None
        y = self._resample.to(x.device)(x.reshape(-1, x.shape[-1]))
        begin = self._context // self._p * self._q
        return y[:, begin : begin + samples].view(*x.shape[:-1], samples)


def _continued(x: Tensor, before: int, after: int) -> Tensor:
    """The signal [..., n] turned around its ends, so that neither value nor slope jumps there."""
    return torch.cat([_turned(x, before), x, _turned(x.flip(-1), after).flip(-1)], dim=-1)


def _turned(x: Tensor, count: int) -> Tensor:
    """`count` samples that lead to the beginning of x; a signal shorter than that holds its last value."""
    turned = 2 * x[..., :1] - x[..., 1 : count + 1].flip(-1)
    missing = count - turned.shape[-1]
    first = torch.cat([turned, x[..., :1]], dim=-1)[..., :1]
    return torch.cat([first.expand(*x.shape[:-1], missing), turned], dim=-1)
