"""What a user asks a separator for: classes, sounds like an example, the sound of a picture, or a vector of features.

Source: Kong et al., USS (arXiv 2305.07447): a class keeps its part of the chunk's own probabilities, an example is the
mean over its chunks and then over examples. For conditions that are embeddings a class is the mean of its training
sounds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from avssl.errors import UsageError
from avssl.models.query_net import keep_classes, mean_query
from avssl.models.separator_model import SeparatorModel

QUIET_FRAME_S, QUIET_PEAK = 0.1, 0.02  # of examples: frames with nothing above this are left out, as published


@dataclass(frozen=True)
class Query:
    """One wanted sound.

    classes: what it is made of, or, for one with a `condition`, what the tagger heard in the examples: both tell
    whether the sound is in a mixture. condition: [condition_dim], the same for all chunks; None: made for each chunk
    from its own probabilities of `classes`.
    """

    name: str
    classes: frozenset[int] = frozenset()
    condition: Tensor | None = None


def class_condition(model: SeparatorModel, probabilities: Tensor | None, classes: frozenset[int]) -> Tensor:
    """Conditions [N, condition_dim] of classes for chunks with `probabilities` [N, K], or [1, …] without a tagger.

    soft: the probabilities, all others 0. Else the classes' features (`one_hot`: themselves), weighted by them.
    Raises UsageError where nothing stands for a class.
    """
    query = model.query
    members = sorted(classes)
    if model.config.source == "tagger" and query.config.kind == "soft":
        if probabilities is None:
            raise UsageError("a 'soft' query needs the tagger's probabilities; this separator has no tagger")
        return query(keep_classes(probabilities, members))
    if query.config.kind == "one_hot":
        table = torch.eye(query.config.features, device=next(model.parameters()).device)
    elif model.class_features is None:
        raise UsageError(
            "this separator has no features of classes, so it cannot be asked for one by name; give an example sound"
        )
    else:
        table = model.class_features
    weights = torch.full((1, len(members)), 1.0, device=table.device)
    if probabilities is not None and len(members) > 1:
        weights = probabilities[:, members].clamp(min=1e-6)
    return query(weights / weights.sum(dim=1, keepdim=True) @ table[members])


def without_silence(mono: Tensor, rate_hz: int) -> Tensor:
    """An example [S] without its quiet frames. Raises UsageError if nothing is left."""
    frame = round(QUIET_FRAME_S * rate_hz)
    frames = F.pad(mono, (0, -len(mono) % frame)).view(-1, frame)
    sound = frames[frames.abs().amax(dim=1) > QUIET_PEAK].flatten()
    if not len(sound):
        raise UsageError(f"the example has no sound louder than {QUIET_PEAK} of full scale; give a louder one")
    return sound


def full_chunks(mono: Tensor, samples: int) -> Tensor:
    """A sound [S] as chunks [n, samples]; the last one is repeated until it is full."""
    chunks = list(mono.split(samples))
    chunks[-1] = chunks[-1].repeat(-(-samples // len(chunks[-1])))[:samples]
    return torch.stack(chunks)


def likely_classes(probabilities: Sequence[Tensor], threshold: float) -> frozenset[int]:
    """What the tagger hears in examples, [chunks, K] each: all classes above the threshold, at least the likeliest."""
    mean = mean_query(probabilities)
    return frozenset(torch.nonzero(mean >= threshold).flatten().tolist()) | {int(mean.argmax())}
