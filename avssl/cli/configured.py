"""Commands whose options are the values of a config: `--config FILE --section.key value`."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import Any, TypeVar

from avssl import config as configuration
from avssl.errors import ConfigError

T = TypeVar("T")


def read_config(cls: type[T], path: str | None, overrides: Sequence[str], *, first: Sequence[str] = ()) -> T:
    """The config of a YAML file and `--key value` (or `--key=value`) words.

    first: keys that decide which other keys are valid, such as `task.name`; they are set before the others.
    """
    tree = configuration.read(path) if path else {}
    given = pairs(overrides)
    for key, text in sorted(given, key=lambda pair: pair[0] not in first):
        configuration.override(cls, tree, key, text)
    if not path and not given:
        raise ConfigError("no --config given; the recipes are in configs/ and eval/")
    return configuration.build(cls, tree)


def pairs(words: Sequence[str]) -> list[tuple[str, str]]:
    """`--a.b 1 --c=2` as pairs."""
    found = []
    rest = iter(words)
    for word in rest:
        if not word.startswith("--"):
            raise ConfigError(f"{word!r}: expected --key value")
        key, equals, text = word[2:].partition("=")
        if not equals:
            value = next(rest, None)
            if value is None:
                raise ConfigError(f"--{key}: has no value")
            text = value
        found.append((key, text))
    return found


def option_table(cls: type, tree: dict[str, Any]) -> str:
    """Every value with type, default and meaning, by section. tree: what decides which keys are valid."""
    lines = []
    for option in configuration.options(cls, tree):
        lines.append(f"  --{option.key} {option.kind} ({option.default})")
        lines += textwrap.wrap(option.meaning, 100, initial_indent=" " * 8, subsequent_indent=" " * 8)
    return "\n".join(lines)
