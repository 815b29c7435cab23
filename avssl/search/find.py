"""The rows of an index that are most similar to a query, one a file."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from avssl.errors import ConfigError, UsageError
from avssl.search.query import WORDS, By, Query
from avssl.search.store import SearchIndex, absolute

if TYPE_CHECKING:
    from avssl.models.av_model import AVModel

EXACT_ROWS = 100_000
"""Up to so many rows all are compared, which takes milliseconds; beyond, the graph finds nearly all of the nearest."""


@dataclass(frozen=True)
class Hit:
    """The best moment of a file. score: cosine. at_s: the moment of the query that it resembles."""

    path: str
    start_s: float
    end_s: float
    score: float
    at_s: float


def shares_space(model: AVModel) -> bool:
    """Whether the model's pictures and sounds can be compared with each other.

    Of towers without heads they can if they were trained so, which needs features of one length; AVSA compares behind
    its own heads, not here.
    """
    config = model.config
    if config.video is None or config.audio is None:
        return False
    if config.head is not None:
        return True
    if config.alignment is not None:
        return False
    try:
        return model.dim > 0
    except ConfigError:
        return False


def choose_find(index: SearchIndex, model: AVModel, query: Query, find: Literal["video", "audio", "auto"]) -> By:
    """Which vectors of the index are compared: by default those of the query's own kind, if the index has any.

    Raises UsageError where there are none, or where picture and sound cannot be compared.
    """
    counts = {kind: graph["rows"] for kind, graph in index.facts["vectors"].items()}
    other: By = "audio" if query.by == "video" else "video"
    wanted: By = find if find != "auto" else (query.by if counts.get(query.by) else other)
    if not counts.get(wanted):
        raise UsageError(f"{index.folder}: has no {WORDS[wanted]} in it to find; try --find {_other(wanted)}")
    if wanted != query.by and not shares_space(model):
        raise UsageError(
            f"{index.folder}: was made with {index.facts['model']}, whose pictures and sounds have no common space, so"
            f" a {WORDS[query.by]} finds no {WORDS[wanted]}; bring them together with avssl-align and index with that"
            f" model, or leave --find away"
        )
    return wanted


def nearest(index: SearchIndex, query: Query, find: By, k: int, *, own: bool = False) -> list[Hit]:
    """The `k` files with the most similar rows, falling. A row's score is its best over the query's windows.

    own: whether the file that the query is may be among them.
    """
    graph = index.graphs[find]
    paths = index.rows["path"].to_pylist()
    left_out = None if own else str(absolute(query.path))
    wanted, exact = k, len(graph) <= EXACT_ROWS
    while True:
        # Neighbouring windows of one file resemble each other: more rows are asked for until there are enough files.
        wanted = min(4 * wanted, len(graph))
        best: dict[str, tuple[float, int, int]] = {}
        for window, (keys, scores) in enumerate(_matches(graph, query.vectors, wanted, exact)):
            for row, score in zip(keys, scores, strict=True):
                path = paths[row]
                # Equal scores go to the earlier row, then the earlier window, whatever order they came in.
                if path != left_out and (path not in best or (-score, row, window) < _order(best[path])):
                    best[path] = (score, row, window)
        if len(best) >= k or wanted == len(graph):
            break
    chosen = sorted(best.values(), key=_order)[:k]
    start_s, end_s = (index.rows[name].to_numpy() for name in ("start_s", "end_s"))
    return [
        Hit(paths[row], float(start_s[row]), float(end_s[row]), round(score, 6), float(query.start_s[window]))
        for score, row, window in chosen
    ]


def _order(found: tuple[float, int, int]) -> tuple[float, int, int]:
    score, row, window = found
    return -score, row, window


def _matches(graph: Any, vectors: np.ndarray, count: int, exact: bool) -> Any:
    """For each of [Q, D] the keys and cosines of its `count` nearest."""
    for vector in vectors:
        found = graph.search(vector, count, exact=exact, threads=1)
        yield found.keys.tolist(), (1.0 - found.distances.astype(np.float64)).tolist()


def _other(kind: By) -> By:
    return "audio" if kind == "video" else "video"
