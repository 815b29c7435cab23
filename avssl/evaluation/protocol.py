"""What an evaluation is asked (`EvalConfig`) and what it answers (`Outcome`). No torch here, so `--help` stays fast."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

from avssl.errors import ConfigError
from avssl.evaluation.registry import protocol_config_class


@dataclass
class EvalConfig:
    """One evaluation: a protocol, applied to a model. The recipes are the YAML files in eval/."""

    protocol: Any
    """The protocol: its `name`, and what else it asks for (see docs/evaluation.md)."""
    name: str
    """Of the result, e.g. `esc50_fold1`."""
    out: str
    """Folder for results.json, tables and pages."""
    model: str | None = None
    """A model folder, a bundled model's name or hf-hub:ORG/NAME; null for protocols that need none."""
    device: str = "cpu"
    """As torch names it."""
    seed: int = 0
    """Of everything that is drawn."""
    allow_missing: int = 0
    """Items that may be missing or unreadable; with more of them there is no score."""

    @classmethod
    def field_types(cls, tree: dict[str, Any]) -> dict[str, type]:
        protocol = tree.get("protocol")
        name = protocol.get("name") if isinstance(protocol, dict) else None
        return {"protocol": protocol_config_class(name)}

    def __post_init__(self) -> None:
        if self.allow_missing < 0:
            raise ConfigError(f"allow_missing is {self.allow_missing}, but must be 0 or more")


class Outcome(NamedTuple):
    """What a protocol found."""

    metrics: dict[str, float]
    """By name, in the unit that the name ends with, or shares of one."""
    items: int
    """How many items the metrics are over."""
    chance: dict[str, float] = {}  # noqa: RUF012 - never changed
    """What guessing reaches, for metrics where that is known."""
    skipped: list[dict[str, str]] = []  # noqa: RUF012
    """Items left out: `item` and `cause`."""
    tables: dict[str, list[dict[str, Any]]] = {}  # noqa: RUF012
    """Rows by table name (per class, per fold, …), those of a table with equal keys; each is written as CSV too."""
    extra: dict[str, Any] = {}  # noqa: RUF012
    """Further facts for results.json."""
