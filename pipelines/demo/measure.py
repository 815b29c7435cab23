"""What the embeddings are worth: retrieval between picture and sound, classes by neighbours, always beside chance."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from avssl.errors import UsageError
from avssl.evaluation.neighbours import Labelled, class_mean_accuracy, knn_accuracy
from avssl.evaluation.retrieval import retrieval

DIRECTIONS = (("video", "audio", "picture → sound"), ("audio", "video", "sound → picture"))
PLACES = (1, 5)
NEIGHBOURS = 5


@dataclass(frozen=True)
class Embedded:
    """The table of `avssl-embed` for one shard folder, a row a clip."""

    rows: np.ndarray  # [N] of the shard folder
    vectors: dict[str, np.ndarray]  # "video", "audio": [N, D] of unit length
    sources: np.ndarray  # [N] the video each was cut from
    labels: np.ndarray  # [N] class names, "" where unknown

    @classmethod
    def read(cls, path: Path) -> Embedded:
        with np.load(path) as table:
            both = table["has_video"] & table["has_audio"]
            vectors = {kind: table[kind][both] for kind in ("video", "audio")}
            return cls(table["row"][both], vectors, table["path"][both], table["label"][both])

    def labelled(self, kind: str) -> Labelled:
        """The clips whose class is known."""
        known = self.labels != ""
        return Labelled(self.vectors[kind][known], self.labels[known], self.sources[known])


def measure(clips: Embedded, reference: Embedded) -> dict[str, Any]:
    """Retrieval among `clips`; classes of `clips` voted by `reference`, never by a clip of the same video."""
    return {
        "clips": len(clips.rows),
        "videos": len(np.unique(clips.sources)),
        "retrieval": list(_retrieval(clips)),
        "classes": list(_classes(clips, reference)),
    }


def _retrieval(clips: Embedded) -> Iterator[dict[str, Any]]:
    groups = {"the same clip": np.arange(len(clips.rows))}
    if len(np.unique(clips.sources)) < len(clips.rows):
        groups["any clip of the same video"] = clips.sources
    for right, group in groups.items():
        for query, candidate, direction in DIRECTIONS:
            result = retrieval(clips.vectors[query], clips.vectors[candidate], group, group, PLACES)
            line: dict[str, Any] = {"direction": direction, "right": right, "candidates": result.candidates}
            for k in PLACES:
                line[f"recall_at_{k}"] = result.recall[k]
                line[f"chance_at_{k}"] = result.chance_recall[k]
                line[f"luck_at_{k}"] = result.luck_recall[k]
            line |= {"median_rank": result.median_rank, "chance_median_rank": result.chance_median_rank}
            yield line


def _classes(clips: Embedded, reference: Embedded) -> Iterator[dict[str, Any]]:
    for kind, name in (("video", "picture"), ("audio", "sound")):
        queries, known = clips.labelled(kind), reference.labelled(kind)
        try:
            votes = asdict(knn_accuracy(queries, known, NEIGHBOURS))
            means = class_mean_accuracy(queries, known)
        except UsageError:  # no classes, or none with two videos: there is nothing to measure
            return
        yield {"modality": name, "class_mean_accuracy": means.accuracy} | votes


def measure_parts(held_out: Embedded, train: Embedded) -> dict[str, Any]:
    """Both parts, with the training clips as the reference of classes. Only `held_out` shows what was learned."""
    return {"held_out": measure(held_out, train), "train": measure(train, train)}


def sentences(measures: dict[str, Any]) -> Iterator[str]:
    """The measures of the held-out clips in words."""
    part = measures["held_out"]
    for line in part["retrieval"]:
        yield (
            f"{line['direction']}, {line['right']} among the first 5 of {line['candidates']}: "
            f"{line['recall_at_5']:.0%} "
            f"(chance {line['chance_at_5']:.0%}, luck ends at {line['luck_at_5']:.0%}); "
            f"median rank {line['median_rank']:g} (chance {line['chance_median_rank']:g})"
        )
    for line in part["classes"]:
        yield (
            f"class by the {NEIGHBOURS} nearest {line['modality']}s of other videos: {line['accuracy']:.0%} of "
            f"{line['counted']} clips, {line['classes']} classes (chance {line['chance']:.0%}, "
            f"luck ends at {line['luck']:.0%})"
        )
    if not part["classes"]:
        yield "no class was measured: there are no labels, or no class has two videos"
