"""Towers by name. Each comes with facts: the input it was made for travels with it. No torch until one is built."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from avssl.config import nearest
from avssl.errors import ConfigError
from avssl.models.config import AudioInput, VideoInput

if TYPE_CHECKING:
    from avssl.models.tower import Tower

Kind = Literal["video", "audio"]
Builder = TypeVar("Builder", bound=Callable[..., Any])

_MODULES = ("r2plus1d", "audio_cnn", "tiny", "torchvision_towers", "efficientnet_lite", "effects_cnn")


@dataclass(frozen=True)
class TowerFacts:
    """What a user of a tower has to know without building it."""

    input: Any  # VideoInput or AudioInput: what it was designed, or its public weights were trained, to see
    source: str  # where the architecture comes from, in a few words


@dataclass(frozen=True)
class _Entry:
    builder: Callable[..., Tower]
    facts: TowerFacts


_towers: dict[tuple[str, str], _Entry] = {}


def register(kind: Kind, name: str, *, input: VideoInput | AudioInput, source: str) -> Callable[[Builder], Builder]:
    """Decorate a function (or class) that builds a tower from keyword arguments."""

    def remember(builder: Builder) -> Builder:
        if (kind, name) in _towers:
            raise ValueError(f"the {kind} tower {name!r} is registered twice")
        _towers[kind, name] = _Entry(builder, TowerFacts(input, source))
        return builder

    return remember


def list_towers(kind: Kind) -> list[str]:
    """The names that `create_tower` knows."""
    _import_all()
    return sorted(name for a_kind, name in _towers if a_kind == kind)


def tower_facts(kind: Kind, name: str) -> TowerFacts:
    """The facts of a tower. Raises ConfigError for an unknown name."""
    return _entry(kind, name).facts


def create_tower(kind: Kind, name: str, *, weights: str | None = None, **kwargs: Any) -> Tower:
    """Build a tower: default initialisation, or the parameters in the user's file `weights`.

    Raises ConfigError for an unknown name or argument, ModelError for a file that does not fit.
    """
    builder = _entry(kind, name).builder
    valid = inspect.signature(builder).parameters
    for key in kwargs:
        if key not in valid:
            raise ConfigError(f"{kind} tower {name!r} takes no argument {key!r}; {nearest(key, valid)}")
    tower = builder(**kwargs)
    if weights is not None:
        tower.load_weights(weights)
    return tower


def _entry(kind: Kind, name: str) -> _Entry:
    _import_all()
    if (kind, name) not in _towers:
        raise ConfigError(f"there is no {kind} tower {name!r}; {nearest(name, list_towers(kind))}")
    return _towers[kind, name]


def _import_all() -> None:
    for module in _MODULES:
        importlib.import_module(f"avssl.models.{module}")
