"""Phases: stretches of a run, one after the other, with settings of their own. No torch here.

A phase says what differs from the run's `task`, `optim`, `schedule` and, in part, `data` (not from the phase before
it). The model, the banks and what else the task knows about rows pass from phase to phase; the schedule starts anew in
each.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from avssl.config import build, merged, plain
from avssl.errors import ConfigError

SECTIONS = ("task", "optim", "schedule")
DATA = ("batch_size", "views")  # what of `data` a phase may change


@dataclass
class PhaseConfig:
    """A phase as it is written."""

    name: str
    """What the log lines of the phase carry."""
    steps: int | None = None
    """Optimiser steps of the phase; give this or `passes`."""
    passes: float | None = None
    """Passes over the data of the phase; give this or `steps`."""
    task: dict[str, Any] = field(default_factory=dict)
    """Values of `task` that differ in this phase; a section given in part is merged, null switches it off."""
    optim: dict[str, Any] = field(default_factory=dict)
    """Values of `optim` that differ in this phase."""
    schedule: dict[str, Any] = field(default_factory=dict)
    """Values of `schedule` that differ in this phase; its steps are counted from the beginning of the phase."""
    data: dict[str, Any] = field(default_factory=dict)
    """Values of `data` that differ in this phase: `batch_size` and `views`, no others."""
    keep_optimizer: bool = True
    """Go on with the optimiser's moments of the phase before; otherwise they start at zero."""

    def __post_init__(self) -> None:
        if not self.name:
            raise ConfigError("phases: a phase has an empty name")
        check_length(self.steps, self.passes, f"phases, {self.name!r}: steps and passes")
        for key in self.data:
            if key not in DATA:
                raise ConfigError(
                    f"phases, {self.name!r}: data.{key} cannot differ between phases, only {' and '.join(DATA)} can"
                )


@dataclass(frozen=True)
class Phase:
    """A phase with everything that holds in it. `where` is what its keys in the config start with."""

    where: str
    name: str | None  # None: the only phase of a run that names none
    steps: int | None
    passes: float | None
    task: Any
    optim: Any
    schedule: Any
    data: Any
    keep_optimizer: bool = True

    def length(self, rows: int) -> int:
        """Its optimiser steps over a data set of `rows`."""
        return self.steps if self.steps is not None else math.ceil((self.passes or 0) * rows / self.data.batch_size)


def check_length(steps: int | None, passes: float | None, keys: str) -> None:
    """`ConfigError` unless exactly one is given, and positive."""
    if (steps is None) == (passes is None):
        raise ConfigError(f"{keys}: give exactly one of them, the other null")
    given = steps if steps is not None else passes
    if given is not None and given <= 0:
        raise ConfigError(f"{keys}: {given} is given, but must be positive")


def resolve(phases: list[PhaseConfig], run: dict[str, Any]) -> list[Phase]:
    """The phases complete: `run` holds the run's own `task`, `optim`, `schedule` and `data`.

    Raises ConfigError whose key starts with `phases[i]` for a value that is unknown or wrong.
    """
    names = [phase.name for phase in phases]
    for number, name in enumerate(names):
        if name in names[:number]:
            raise ConfigError(f"phases[{number}].name is {name!r} like that of an earlier one; give it another")
    return [_resolved(phase, number, run) for number, phase in enumerate(phases)]


def _resolved(phase: PhaseConfig, number: int, run: dict[str, Any]) -> Phase:
    where = f"phases[{number}]."
    if phase.task.get("name", run["task"].name) != run["task"].name:
        raise ConfigError(f"{where}task.name is {phase.task['name']!r}, but a run keeps its task {run['task'].name!r}")
    settings = {}
    for section in (*SECTIONS, "data"):
        with naming(where):
            base, changes = run[section], getattr(phase, section)
            settings[section] = build(type(base), merged(plain(base), changes), f"{where}{section}")
    return Phase(where, phase.name, phase.steps, phase.passes, keep_optimizer=phase.keep_optimizer, **settings)


@contextmanager
def naming(where: str) -> Iterator[None]:
    """Let the message of a ConfigError start with the phase `where` it comes from."""
    try:
        yield
    except ConfigError as error:
        if str(error).startswith(where):
            raise
        raise ConfigError(f"{where}{error}") from None
