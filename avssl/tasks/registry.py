"""The tasks by name, as import paths: reading a config or printing `--help` does not import torch."""

from __future__ import annotations

import importlib
from typing import Any, NamedTuple

from avssl.errors import ConfigError


class TaskEntry(NamedTuple):
    """Where a task lives: `module:Class` of its config and of its model's (plain dataclasses without torch), and of
    itself."""

    config: str
    task: str
    model: str = "avssl.models.config:ModelConfig"


TASKS = {
    "avsa": TaskEntry("avssl.tasks.avsa_config:AVSAConfig", "avssl.tasks.avsa:AVSATask"),
    "separation": TaskEntry(
        "avssl.tasks.separation_config:SeparationConfig",
        "avssl.tasks.separation:SeparationTask",
        "avssl.models.sound_config:SeparatorModelConfig",
    ),
    "tagging": TaskEntry(
        "avssl.tasks.tagging_config:TaggingConfig",
        "avssl.tasks.tagging:TaggingTask",
        "avssl.models.sound_config:TaggerModelConfig",
    ),
    "xid": TaskEntry("avssl.tasks.xid_config:XIDConfig", "avssl.tasks.xid:XIDTask"),
}


def task_config_class(name: str) -> type:
    """The dataclass that `task:` of a config is read into."""
    return _load(_entry(name).config)


def model_config_class(name: str) -> type:
    """The dataclass that `model:` of a config is read into when it is for this task."""
    return _load(_entry(name).model)


def task_class(name: str) -> Any:
    """The task itself (see `avssl.tasks.base.Task`)."""
    return _load(_entry(name).task)


def _entry(name: str) -> TaskEntry:
    if name not in TASKS:
        raise ConfigError(f"task.name is {name!r}, but the tasks are: {', '.join(sorted(TASKS))}")
    return TASKS[name]


def _load(path: str) -> Any:
    module, _, attribute = path.partition(":")
    return getattr(importlib.import_module(module), attribute)
