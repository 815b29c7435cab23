"""One recording on its way through a separator: blocks in, sources out, at the recording's own rate and channels."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import torch
from torch import Tensor

from avssl.errors import UsageError
from avssl.models.separator_model import SeparatorModel
from avssl.separation.options import SeparationOptions
from avssl.separation.overlap_add import Chunking, cut_windows, stream
from avssl.separation.queries import Query, class_condition
from avssl.separation.rates import Converter
from avssl.separation.tagger import Tagger


class SeparationStream:
    """Separates one recording for `queries`; for one pass only.

    Channels go through the network one by one, under one condition made from their mean. probabilities: [chunks, K], if
    `listen` has gone over the same recording before: then nothing is tagged again.
    """

    def __init__(
        self,
        model: SeparatorModel,
        tagger: Tagger | None,
        rate_hz: int,
        queries: Sequence[Query],
        options: SeparationOptions,
        probabilities: Tensor | None = None,
    ):
        self._model, self._tagger, self._queries, self._options = model, tagger, list(queries), options
        inner_hz = model.config.separator.rate_hz
        self._down, self._up = Converter(rate_hz, inner_hz), Converter(inner_hz, rate_hz)
        self._chunking = chunking_of(model, options)
        self._known = probabilities
        self._at = 0
        self._scores = [0.0 if self._is_scored(query) else None for query in self._queries]
        self.active_chunks = [0] * len(self._queries)
        """In how many chunks each query was not silenced."""
        latency_s = self._chunking.latency(options.batch_size) / inner_hz
        self.latency_s = latency_s + self._down.lag_s + self._up.lag_s
        """How much sound must have come in before the first sample goes out; never more later on."""

    @property
    def chunks(self) -> int:
        """How many have been seen."""
        return self._at

    @property
    def scores(self) -> list[float | None]:
        """For each query the highest probability of one of its classes in a chunk so far; None: nobody can tell."""
        return self._scores

    def run(self, blocks: Iterable[Tensor]) -> Iterator[Tensor]:
        """Blocks [C, n] of any lengths -> [queries, C, m], as soon as final; as many samples as came in."""
        came_in = 0

        def counted() -> Iterator[Tensor]:
            nonlocal came_in
            for block in blocks:
                came_in += block.shape[-1]
                yield block.float()

        gone_out = 0
        inner = stream(self._down.stream(counted()), self._process, self._chunking, batch=self._options.batch_size)
        for sources in self._up.stream(inner):
            sources = sources[..., : came_in - gone_out]  # rates do not always meet at the end
            gone_out += sources.shape[-1]
            yield sources

    @torch.inference_mode()
    def _process(self, windows: Tensor) -> Tensor:
        """[N, C, window] -> [N, Q, C, window]."""
        inner = windows.to(self._model_device)
        probabilities = self._probabilities(inner.mean(dim=1))
        out = inner.new_zeros(len(inner), len(self._queries), *inner.shape[1:])
        done: dict[frozenset[int], int] = {}
        for number, query in enumerate(self._queries):
            active = self._active(number, query, probabilities, len(inner))
            self.active_chunks[number] += int(active.sum())
            if query.condition is None and done.setdefault(query.classes, number) != number:
                out[:, number] = out[:, done[query.classes]]  # two nodes over the same classes
            elif active.any():
                condition = self._condition(query, None if probabilities is None else probabilities[active])
                out[active, number] = self._separate(inner[active], condition)
        self._at += len(windows)
        return out.to(windows.device)

    def _probabilities(self, mono: Tensor) -> Tensor | None:
        if self._known is not None:
            found = self._known[self._at : self._at + len(mono)]
            if len(found) != len(mono):
                raise UsageError("separation: the recording has more chunks than the probabilities given with it")
            return found.to(mono.device)
        if self._tagger is None or not any(query.classes for query in self._queries):
            return None
        return self._tagger.probabilities(mono[:, None], self._model.config.separator.rate_hz)

    def _active(self, number: int, query: Query, probabilities: Tensor | None, chunks: int) -> Tensor:
        """Which chunks are separated [chunks] bool; notes the score."""
        everywhere = torch.ones(chunks, dtype=torch.bool, device=self._model_device)
        if probabilities is None or not query.classes:
            return everywhere
        heard = probabilities[:, sorted(query.classes)].amax(dim=1)
        self._scores[number] = max(self._scores[number] or 0.0, float(heard.max()))
        return everywhere if query.condition is not None else heard >= self._options.threshold

    def _condition(self, query: Query, probabilities: Tensor | None) -> Tensor:
        if query.condition is not None:
            return query.condition.to(self._model_device)[None]
        return class_condition(self._model, probabilities, query.classes)

    def _separate(self, inner: Tensor, condition: Tensor) -> Tensor:
        """[n, C, window], [n or 1, D] -> [n, C, window]."""
        mixtures = inner.flatten(0, 1)
        conditions = condition.expand(len(inner), -1).repeat_interleave(inner.shape[1], dim=0)
        size = self._options.batch_size
        parts = zip(mixtures.split(size), conditions.split(size), strict=True)
        return torch.cat([self._model.separator(*part) for part in parts]).view_as(inner)

    def _is_scored(self, query: Query) -> bool:
        return bool(query.classes) and (self._tagger is not None or self._known is not None)

    @property
    def _model_device(self) -> torch.device:
        return next(self._model.parameters()).device


def chunking_of(model: SeparatorModel, options: SeparationOptions) -> Chunking:
    """How recordings are cut, in samples of the network's rate."""
    window = round(model.config.window_s * model.config.separator.rate_hz)
    return Chunking(window, min(round(options.overlap * window), window // 2))


@torch.inference_mode()
def listen(
    model: SeparatorModel, tagger: Tagger, rate_hz: int, blocks: Iterable[Tensor], options: SeparationOptions
) -> Tensor:
    """What the tagger hears in each chunk of a recording that comes in blocks [C, n]: [chunks, K], on the CPU."""
    inner_hz = model.config.separator.rate_hz
    mono = (block.float().mean(dim=0, keepdim=True) for block in blocks)
    windows = cut_windows(Converter(rate_hz, inner_hz).stream(mono), chunking_of(model, options))
    found = [tagger.probabilities(window, inner_hz).cpu() for window, _ in windows]
    return torch.stack(found) if found else torch.zeros(0, len(tagger.ontology.classes))
