"""Classes of sound and how they nest: AudioSet's 527 classes and 632 nodes, or a list or tree of the user's own.

The table beside the package (`avssl/assets/audioset/ontology.tsv`) holds facts only: id, name, class number, parents.
"""

from __future__ import annotations

import csv
import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from avssl.config import nearest
from avssl.errors import ConfigError, UsageError
from avssl.models.sound_config import Classes, ClassRow

AUDIOSET = Path(__file__).parent.parent / "assets" / "audioset" / "ontology.tsv"


@dataclass(frozen=True)
class Node:
    """One kind of sound. `class_index` is its number in a tagger's output, None for a kind that is only a heading."""

    id: str
    name: str
    class_index: int | None
    parents: tuple[str, ...]


class Ontology:
    """Nodes with their parents, some of which are the classes 0..K-1 of a tagger.

    A node may have several parents. The *tree* hangs each node under the first of them, as the published hierarchical
    separation does, so that every sound has one place in it; `classes_under` follows all of them.

    Raises ConfigError for an unknown parent, a circle, a doubled id or class number, or a gap in the class numbers.
    """

    def __init__(self, nodes: Iterable[Node], where: str = "ontology"):
        self.nodes: dict[str, Node] = {}
        for node in nodes:
            if node.id in self.nodes:
                raise ConfigError(f"{where}: the id {node.id!r} appears twice; keep one row")
            self.nodes[node.id] = node
        classes: dict[int, Node] = {}
        for node in self.nodes.values():
            for parent in node.parents:
                if parent not in self.nodes:
                    raise ConfigError(f"{where}: {node.id!r} has the parent {parent!r}, which has no row; add it")
            if node.class_index is not None:
                if node.class_index in classes:
                    raise ConfigError(f"{where}: class {node.class_index} appears twice; number the classes once each")
                classes[node.class_index] = node
        if sorted(classes) != list(range(len(classes))):
            raise ConfigError(f"{where}: {len(classes)} classes are not numbered 0 to {len(classes) - 1}; fill the gap")
        self.classes: list[Node] = [classes[number] for number in range(len(classes))]
        self._level = _levels(self.nodes, where)
        self._below = self._members(lambda node: node.parents)
        self._below_in_tree = self._members(lambda node: node.parents[:1])

    @property
    def roots(self) -> list[Node]:
        return [node for node in self.nodes.values() if not node.parents]

    def children(self, node_id: str) -> list[Node]:
        """Those that hang under the node in the tree."""
        return [node for node in self.nodes.values() if node.parents[:1] == (node_id,)]

    def level(self, node_id: str) -> int:
        """1 for a root, one more for each step down the tree."""
        return self._level[node_id]

    def at_level(self, level: int) -> list[Node]:
        """The nodes of a level of the tree that have at least one class, in the order of the table."""
        return [node for node in self.nodes.values() if self._level[node.id] == level and self._below_in_tree[node.id]]

    def classes_under(self, node_id: str, *, tree: bool = False) -> frozenset[int]:
        """Class numbers of the node itself and all below it; with `tree`, only along first parents."""
        return (self._below_in_tree if tree else self._below)[node_id]

    def find(self, name: str) -> Node:
        """The node with this name or id; case does not matter, and one of several names separated by commas will do
        ("man speaking" for "Male speech, man speaking") if only one node has it.

        Raises UsageError naming the nearest name, or the nodes that share the name.
        """
        if name in self.nodes:
            return self.nodes[name]
        wanted = name.strip().casefold()
        exact = [node for node in self.nodes.values() if node.name.casefold() == wanted]
        found = exact or [
            node for node in self.nodes.values() if wanted in (part.strip().casefold() for part in node.name.split(","))
        ]
        if len(found) == 1:
            return found[0]
        if found:
            several = ", ".join(f"{node.name!r} ({node.id})" for node in found)
            raise UsageError(f"class {name!r} is the name of several: {several}; give the id")
        names = [node.name for node in self.nodes.values()]
        raise UsageError(f"there is no class {name!r}; {nearest(name, names)}")

    def _members(self, up: Callable[[Node], Sequence[str]]) -> dict[str, frozenset[int]]:
        members: dict[str, set[int]] = {node_id: set() for node_id in self.nodes}
        for node in self.classes:
            reached, waiting = {node.id}, [node]
            while waiting:
                for parent in up(waiting.pop()):
                    if parent not in reached:
                        reached.add(parent)
                        waiting.append(self.nodes[parent])
            for node_id in reached:
                assert node.class_index is not None
                members[node_id].add(node.class_index)
        return {node_id: frozenset(numbers) for node_id, numbers in members.items()}


@functools.cache
def audioset() -> Ontology:
    """AudioSet: 632 nodes under 7 roots, 527 of them classes in the order of the PANNs taggers."""
    return read_ontology(AUDIOSET)


def read_ontology(path: str | Path) -> Ontology:
    """From a tab-separated table with the columns id, name, class (a number, or empty) and parents (ids, spaced).

    Raises ConfigError naming the file and the row.
    """
    nodes = []
    try:
        with Path(path).open(newline="", encoding="utf-8") as file:
            for number, row in enumerate(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE), start=2):
                try:
                    index = int(row["class"]) if row["class"] else None
                    nodes.append(Node(row["id"], row["name"], index, tuple(row["parents"].split())))
                except (KeyError, ValueError, AttributeError) as error:
                    raise ConfigError(
                        f"{path}, row {number}: cannot be read ({error}); the columns are id, name, class, parents"
                    ) from error
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error}); give a tab-separated table") from error
    return Ontology(nodes, str(path))


def flat_ontology(names: Sequence[str]) -> Ontology:
    """Classes without any order among them, as most data sets have: every class is a root."""
    return Ontology(Node(name, name, number, ()) for number, name in enumerate(names))


def ontology_of(classes: Classes) -> Ontology:
    """The ontology that a model folder describes. Raises ConfigError as `Ontology`."""
    if isinstance(classes, str):
        return audioset()
    return Ontology((Node(row.id, row.name, row.index, tuple(row.parents)) for row in classes), "classes")


def class_numbers(classes: Classes) -> dict[str, int]:
    """The number of each class by its name and by its id, as data sets label their clips."""
    nodes = ontology_of(classes).classes
    return {name: number for number, node in enumerate(nodes) for name in (node.name, node.id)}


def class_rows(ontology: Ontology) -> Classes:
    """The inverse of `ontology_of`."""
    if ontology is audioset():
        return "audioset"
    return [ClassRow(node.id, node.name, node.class_index, list(node.parents)) for node in ontology.nodes.values()]


def _levels(nodes: Mapping[str, Node], where: str) -> dict[str, int]:
    """Depth along first parents; every chain of parents is walked, so that a circle is found."""
    finished: set[str] = set()

    def check(node_id: str, path: tuple[str, ...]) -> None:
        if node_id in path:
            raise ConfigError(f"{where}: {node_id!r} is above itself ({' -> '.join((*path, node_id))}); cut the circle")
        if node_id not in finished:
            for parent in nodes[node_id].parents:
                check(parent, (*path, node_id))
            finished.add(node_id)

    levels = {}
    for node_id, start in nodes.items():
        check(node_id, ())
        depth, node = 1, start
        while node.parents:
            depth, node = depth + 1, nodes[node.parents[0]]
        levels[node_id] = depth
    return levels
