"""What the folder of a tagger or a separator describes: networks, classes, and what a query is made from. No torch."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from avssl.config import build
from avssl.errors import ConfigError
from avssl.models.config import ModelConfig
from avssl.models.separation_config import QueryConfig, SeparatorConfig, TaggerConfig


@dataclass
class ClassRow:
    """A row of an ontology. index: its number in the tagger's output; null for a kind that is only a heading."""

    id: str
    name: str
    index: int | None = None
    parents: list[str] = field(default_factory=list)  # ids


Classes = Literal["audioset"] | list[ClassRow]  # AudioSet's table comes with the package


@dataclass
class TaggerModelConfig:
    """A tagger and the names of what it tags."""

    kind: ClassVar[str] = "tagger"

    tagger: TaggerConfig
    classes: Classes = "audioset"

    def __post_init__(self):
        _check_classes(self.classes, self.tagger.classes, "tagger.classes")

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, value: dict[str, Any], where: str = "model") -> TaggerModelConfig:
        """The inverse of `to_dict`. Raises ConfigError naming an unknown, missing or mistyped key."""
        return build(cls, value, where)

    def without_files(self) -> TaggerModelConfig:
        """Itself: it names no files to start from."""
        return self


@dataclass
class SeparatorModelConfig:
    """A separator, and all that makes its condition.

    source: what the features of a query come from: the `tagger`'s output, an embedding of the model `two_tower`, or a
    "vector" of the user's own (AudioSep's text embeddings). The tagger may be there for other sources, too: it says
    what is heard where.
    """

    kind: ClassVar[str] = "separator"

    separator: SeparatorConfig
    query: QueryConfig
    source: Literal["tagger", "two_tower", "vector"] = "tagger"
    tagger: TaggerConfig | None = None
    two_tower: ModelConfig | None = None
    classes: Classes = "audioset"
    class_features: bool = False
    """Whether the weights hold `class_features` [classes, query.features]: the mean features of each class's training
    sounds, which stand for a class where the features are an embedding."""
    window_s: float = 2.0
    """Length of the sounds that it was trained on, and so of what it is given."""

    def __post_init__(self):
        if self.query.condition_dim != self.separator.condition_dim:
            raise ConfigError(
                f"query: makes conditions of {self.query.condition_dim} numbers, the separator's condition_dim is "
                f"{self.separator.condition_dim}; they must be equal"
            )
        by_class = self.source == "tagger" and not self.query.reads_embedding
        if by_class and class_count(self.classes) != self.query.features:
            raise ConfigError(
                f"query.features: is {self.query.features}, but there are {class_count(self.classes)} classes; set that"
            )
        needs_no_encoder = self.source == "vector" or self.query.kind == "one_hot"
        if not needs_no_encoder and getattr(self, self.source) is None:
            raise ConfigError(f"source: is {self.source!r}, but there is no `{self.source}`; describe it")
        if self.source == "tagger" and self.tagger and self.query.reads_embedding:
            given = self.tagger.embedding_dim
            if given != self.query.features:
                raise ConfigError(f"query.features: is {self.query.features}, but the tagger gives {given}; set that")
        if self.tagger:
            _check_classes(self.classes, self.tagger.classes, "tagger.classes")
        if not 0.1 <= self.window_s <= 60:
            raise ConfigError(f"window_s: {self.window_s} is not within 0.1 to 60 seconds")

    @property
    def count(self) -> int:
        """Number of classes."""
        return class_count(self.classes)

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, value: dict[str, Any], where: str = "model") -> SeparatorModelConfig:
        """The inverse of `to_dict`. Raises ConfigError naming an unknown, missing or mistyped key."""
        return build(cls, value, where)

    def without_files(self) -> SeparatorModelConfig:
        """A copy whose two-tower model no longer names files to start from."""
        return dataclasses.replace(self, two_tower=self.two_tower and self.two_tower.without_files())


def class_count(classes: Classes) -> int:
    return 527 if classes == "audioset" else sum(row.index is not None for row in classes)


def _check_classes(classes: Classes, wanted: int, where: str) -> None:
    if class_count(classes) != wanted:
        raise ConfigError(f"classes: lists {class_count(classes)} classes, {where} is {wanted}; give one row a class")
