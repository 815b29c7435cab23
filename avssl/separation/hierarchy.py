"""From class probabilities to what was heard where in an ontology: scores of nodes, and the tree of those found.

Source: the hierarchical mode of USS (arXiv 2305.07447): a node is active in a chunk if any class below it reaches 0.2.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from avssl.errors import UsageError
from avssl.separation.ontology import Node, Ontology
from avssl.separation.options import THRESHOLD


@dataclass(frozen=True)
class Found:
    """A node that is heard. score: the highest probability below it, over all chunks. chunks: where it is active.
    classes: what its query keeps of the probabilities."""

    node: Node
    level: int
    score: float
    chunks: tuple[int, ...]
    classes: frozenset[int]


def node_scores(probabilities: Tensor, ontology: Ontology, nodes: Sequence[Node]) -> Tensor:
    """Class probabilities [..., K] -> [..., len(nodes)]: the largest among the classes below each node in the tree.

    A node without classes scores 0. Raises UsageError where the probabilities belong to other classes.
    """
    if probabilities.shape[-1] != len(ontology.classes):
        raise UsageError(
            f"hierarchy: {probabilities.shape[-1]} probabilities, but {len(ontology.classes)} classes in the ontology; "
            "use the ontology that the tagger was trained with"
        )
    columns = []
    for node in nodes:
        members = sorted(ontology.classes_under(node.id, tree=True))
        columns.append(probabilities[..., members].amax(-1) if members else torch.zeros_like(probabilities[..., 0]))
    return torch.stack(columns, dim=-1)


def find_sounds(
    probabilities: Tensor, ontology: Ontology, levels: Sequence[int] = (1, 2, 3), threshold: float = THRESHOLD
) -> list[Found]:
    """The nodes of `levels` that are active in some chunk of a recording, probabilities [chunks, K], from the top down.

    Nothing else need be separated: other nodes are silent everywhere. Two nodes over the same classes ask for the same
    sound: their `classes` are equal, so one separation serves both.
    """
    nodes = [node for level in levels for node in ontology.at_level(level)]
    if not nodes or not len(probabilities):
        return []
    scores = node_scores(probabilities, ontology, nodes)
    found = []
    for column, node in zip(scores.unbind(-1), nodes, strict=True):
        active = torch.nonzero(column >= threshold).flatten().tolist()
        if active:
            classes = ontology.classes_under(node.id, tree=True)
            found.append(Found(node, ontology.level(node.id), float(column.max()), tuple(active), classes))
    return found


def as_tree(found: Sequence[Found], ontology: Ontology) -> list[dict[str, Any]]:
    """Found nodes nested as in the ontology, as plain values for JSON: name, id, level, score, chunks, children.

    A node whose parent was not asked for hangs under the nearest one above it that was. Most likely first.
    """
    entries = {
        one.node.id: {
            "name": one.node.name,
            "id": one.node.id,
            "level": one.level,
            "score": one.score,
            "chunks": list(one.chunks),
            "children": [],
        }
        for one in found
    }
    top: list[dict[str, Any]] = []
    for one in found:
        above = one.node.parents[:1]
        while above and above[0] not in entries:
            above = ontology.nodes[above[0]].parents[:1]
        siblings: Any = entries[above[0]]["children"] if above else top
        siblings.append(entries[one.node.id])
        siblings.sort(key=lambda entry: -entry["score"])
    return top
