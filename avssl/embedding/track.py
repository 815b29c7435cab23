"""One modality of one recording, ready to be cut into clips and encoded."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from avssl.embedding.windows import ClipGrid

if TYPE_CHECKING:
    from torch import Tensor

EMBEDDING = "embedding"  # the model's own name of what becomes the column `video` or `audio`

Vectors = dict[str, np.ndarray]  # column name -> [D] float32; of viewpoints [K, D]


@dataclass(frozen=True)
class Track:
    """Where the clips of a stream lie, how to read them and how to encode a batch of them."""

    kind: str
    path: str
    grid: ClipGrid
    chunks: Callable[[], Iterator[np.ndarray]]  # steps along the first axis, from the stream's start, without gaps
    encode: Callable[[np.ndarray], Vectors]  # clips [B, length, ...] -> column -> [B, D], of viewpoints [B, K, D]


def named(kind: str, found: dict[str, Tensor]) -> Vectors:
    """What the model gives as columns `KIND` and `KIND.LAYER`."""
    arrays = {name: value.cpu().numpy() for name, value in found.items()}
    return {kind: arrays.pop(EMBEDDING)} | {f"{kind}.{name}": value for name, value in arrays.items()}
