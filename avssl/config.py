"""Typed configuration: a tree of dataclasses, read from YAML and `--a.b.c value`, written back complete.

Every message names the full key. The dataclasses sit next to what they configure and import nothing heavy.
A class whose field types depend on a value (a task's on its name) has a classmethod
`field_types(value) -> {field: type}`; one whose defaults do (a model's on its towers) has
`completed(value) -> value`, which fills in what was left out of the plain mapping.
"""

from __future__ import annotations

import ast
import dataclasses
import difflib
import functools
import inspect
import re
import textwrap
import types
import typing
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeVar

import yaml

from avssl.errors import ConfigError

T = TypeVar("T")
_MOST_REFERRED = 100_000  # nodes that references of one YAML text may stand for


class _Loader(yaml.SafeLoader):
    """YAML 1.1 whose `1e-4` is a number, not a string, and without references that make gigabytes of a few lines."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        is_reference = self.check_event(yaml.AliasEvent)
        mark = self.peek_event().start_mark
        node = super().compose_node(parent, index)
        if is_reference:
            self._referred = getattr(self, "_referred", 0) + _size(node)
            if self._referred > _MOST_REFERRED:
                raise yaml.composer.ComposerError(None, None, "references to more than can be meant", mark)
        return node


def _size(node: Any) -> int:
    """Number of nodes in this one, those of references counted each time, up to the limit."""
    total, waiting = 0, [node]
    while waiting and total <= _MOST_REFERRED:
        value = waiting.pop().value
        total += 1
        if isinstance(value, list):
            waiting += [part for item in value for part in (item if isinstance(item, tuple) else (item,))]
    return total


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?(\d[\d_]*)(\.\d*)?[eE][-+]?\d+$"), list("-+0123456789")
)


def read(path: str | Path) -> dict[str, Any]:
    """The tree in a YAML file."""
    try:
        text = Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror})") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: not valid YAML (it is no UTF-8 text)") from None
    try:
        tree = yaml.load(text, _Loader)
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise ConfigError(f"{path}: not valid YAML ({' '.join(str(error).split())})") from None
    if not isinstance(tree, dict):
        raise ConfigError(f"{path}: expected a mapping of sections, got {tree!r}")
    return tree


def dump(config: Any) -> str:
    """The whole tree as YAML, defaults and nulls included, so that `build` gives an equal tree."""
    return yaml.safe_dump(plain(config), sort_keys=False, allow_unicode=True)


def plain(config: Any) -> Any:
    """Dataclasses and tuples as dicts and lists."""
    if dataclasses.is_dataclass(config) and not isinstance(config, type):
        return {field.name: plain(getattr(config, field.name)) for field in dataclasses.fields(config)}
    if isinstance(config, dict):
        return {key: plain(value) for key, value in config.items()}
    if isinstance(config, (list, tuple)):
        return [plain(value) for value in config]
    return config


def merged(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """A plain mapping with the values of another put over it, section by section; null stands for itself."""
    both = dict(base)
    for key, value in changes.items():
        deeper = isinstance(value, dict) and isinstance(base.get(key), dict)
        both[key] = merged(base[key], value) if deeper else value
    return both


def override(cls: type, tree: dict[str, Any], key: str, text: str) -> None:
    """Set the dotted `key` of `tree`, which will be built as `cls`, to what `text` says on a command line.

    For a text field it is taken as it is, otherwise as YAML; a single value for a list is a list of one. `phases[1].x`
    is the key `x` of the second entry of a list, which must be there.
    """
    *sections, name = key.split(".")
    hint: Any = cls
    node = tree
    for section in sections:
        field, index = _entry(section)
        if not _is_mapping(hint):
            hint = _field_hint(hint, field, node, key, cls)
        if index is not None:
            node, hint = _list_entry(node.get(field), index, f"--{key}", field), typing.get_args(hint)[0]
            continue
        if not isinstance(node.get(section), dict):  # absent, or null so far
            node[section] = {}
        node = node[section]
    if _is_mapping(hint):
        node[name] = yaml.load(text, _Loader)
        return
    hint = _field_hint(hint, name, node, key, cls)
    alternatives = _alternatives(hint)
    if text == "null" and type(None) in alternatives:
        node[name] = None
    elif str in alternatives or all(
        typing.get_origin(kind) is Literal for kind in alternatives if kind is not types.NoneType
    ):
        node[name] = text
    else:
        value = yaml.load(text, _Loader)
        is_list = typing.get_origin(alternatives[0]) is list
        node[name] = [value] if is_list and not isinstance(value, list) else value


def build(cls: type[T], value: Any, where: str = "") -> T:
    """Make the dataclass `cls` from plain dicts, lists and scalars. `where` is the key that errors start with.

    Raises ConfigError that names the key: unknown (with the nearest valid one), missing, or of the wrong type.
    """
    prefix = f"{where}." if where else ""
    if not isinstance(value, dict):
        raise ConfigError(f"{where or 'config'}: expected a mapping with keys {', '.join(_fields(cls))}, got {value!r}")
    if hasattr(cls, "completed"):
        value = typing.cast(Any, cls).completed(value)
    hints = _hints(cls, value)
    for key in value:
        if key not in hints:
            raise ConfigError(f"{prefix}{key}: unknown key; {nearest(key, hints, options(cls, value), prefix)}")
    for field in _fields(cls).values():
        if field.name not in value and not _has_default(field):
            if not dataclasses.is_dataclass(hints[field.name]):
                raise ConfigError(f"{prefix}{field.name}: missing; it has no default")
            value = {**value, field.name: {}}
    return cls(**{key: _convert(hints[key], item, prefix + key) for key, item in value.items()})


def nearest(key: str, valid: Iterable[str], options: Iterable[Option] = (), prefix: str = "") -> str:
    """`did you mean X?` or the list of valid names, to end an error about an unknown name.

    Also finds a name that belongs further down the tree, among `options`.
    """
    names = sorted(valid)
    close = difflib.get_close_matches(str(key), names, n=1)
    if close:
        return f"did you mean '{prefix}{close[0]}'?"
    last: dict[str, str] = {}
    for option in options:
        last.setdefault(option.key.split(".")[-1], option.key)
    deeper = difflib.get_close_matches(str(key).split(".")[-1], last, n=1, cutoff=0.8)
    if deeper:
        return f"did you mean '{prefix}{last[deeper[0]]}'?"
    return f"valid: {', '.join(names) or 'none'}"


class Option(NamedTuple):
    """A leaf of the tree: its dotted key, its type and default as one writes them, and its meaning."""

    key: str
    kind: str
    default: str
    meaning: str


def options(cls: type, tree: dict[str, Any] | None = None, prefix: str = "") -> Iterator[Option]:
    """Every value that can be set, depth first in the order of definition."""
    tree = tree if isinstance(tree, dict) else {}
    meanings = _meanings(cls)
    hints = _hints(cls, tree)
    for field in _fields(cls).values():
        section = next((kind for kind in _alternatives(hints[field.name]) if dataclasses.is_dataclass(kind)), None)
        if section is not None:
            yield from options(typing.cast(type, section), tree.get(field.name), f"{prefix}{field.name}.")
            continue
        if field.default_factory is not dataclasses.MISSING:
            default = yaml.safe_dump(plain(field.default_factory()), default_flow_style=True).strip()
        elif field.default is dataclasses.MISSING:
            default = "required"
        else:
            default = yaml.safe_dump(plain(field.default), default_flow_style=True).removesuffix("...\n").strip()
        yield Option(prefix + field.name, type_name(hints[field.name]), default, meanings.get(field.name, ""))
        for kind in typing.get_args(hints[field.name]):
            if typing.get_origin(hints[field.name]) is list and dataclasses.is_dataclass(kind):
                yield from options(typing.cast(type, kind), None, f"{prefix}{field.name}[i].")


def type_name(hint: Any) -> str:
    """A type as its users write values of it."""
    if typing.get_origin(hint) is Literal:
        return " or ".join(map(str, typing.get_args(hint)))
    if len(_alternatives(hint)) > 1:
        return " or ".join(type_name(kind) for kind in _alternatives(hint))
    if typing.get_origin(hint) is list:
        kind = typing.get_args(hint)[0]
        return f"list of {'sections' if dataclasses.is_dataclass(kind) else type_name(kind)}"
    if typing.get_origin(hint) is tuple:
        return f"list of {len(typing.get_args(hint))} {type_name(typing.get_args(hint)[0])}"
    names = {int: "integer", float: "number", str: "text", bool: "true or false", dict: "mapping", type(None): "null"}
    return names.get(typing.get_origin(hint) or hint, getattr(hint, "__name__", str(hint)))


def _convert(hint: Any, value: Any, where: str) -> Any:
    """`value` as the type `hint` says; ConfigError if it is not of that type. Nothing is guessed."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (types.UnionType, typing.Union):
        if value is None and type(None) in arguments:
            return None
        kinds = [kind for kind in arguments if kind is not type(None)]
        if len(kinds) > 1:
            fitting = [kind for kind in kinds if _fits(kind, value)]
            if not fitting:
                raise ConfigError(f"{where}: expected {type_name(hint)}, got {value!r}")
            kinds = fitting
        return _convert(kinds[0], value, where)
    if dataclasses.is_dataclass(hint):
        return build(typing.cast(type, hint), value, where)
    if origin is Literal:
        if value not in arguments:
            raise ConfigError(f"{where}: {value!r} is none of {', '.join(map(str, arguments))}")
        return value
    if origin in (list, tuple) and isinstance(value, (list, tuple)):
        if origin is tuple and len(value) != len(arguments):
            raise ConfigError(f"{where}: expected {len(arguments)} values, got {len(value)}")
        kinds = list(arguments) if origin is tuple else list(arguments) * len(value)
        return origin(_convert(kind, item, f"{where}[{i}]") for i, (kind, item) in enumerate(zip(kinds, value)))  # noqa: B905
    if hint is float and type(value) is int:
        return float(value)
    if hint is not Any and type(value) is not (origin or hint):
        raise ConfigError(f"{where}: expected {type_name(hint)}, got {value!r}")
    return value


def _fits(kind: Any, value: Any) -> bool:
    """Whether a value can be meant as this member of a union."""
    if typing.get_origin(kind) is Literal:
        return value in typing.get_args(kind)
    return isinstance(value, typing.get_origin(kind) or kind)


def _entry(section: str) -> tuple[str, int | None]:
    """`phases[1]` as ("phases", 1), any other name as (name, None)."""
    found = re.fullmatch(r"(\w+)\[(\d+)\]", section)
    return (found[1], int(found[2])) if found else (section, None)


def _list_entry(entries: Any, index: int, where: str, name: str) -> dict[str, Any]:
    """The mapping at `index` of a list in a plain tree."""
    number = len(entries) if isinstance(entries, list) else 0
    if index >= number or not isinstance(entries[index], dict):
        raise ConfigError(f"{where}: {name} has {number} entries, counted from 0; add this one in the YAML file first")
    return entries[index]


def _field_hint(hint: Any, name: str, value: dict[str, Any], key: str, root: type) -> Any:
    section = next((kind for kind in _alternatives(hint) if dataclasses.is_dataclass(kind)), None)
    hints = _hints(typing.cast(type, section), value) if section is not None else {}
    if name not in hints:
        valid = [option.key for option in options(root)]
        raise ConfigError(f"--{key}: unknown key; {nearest(key, valid, options(root))}")
    return hints[name]


def _alternatives(hint: Any) -> tuple[Any, ...]:
    """The members of a union, or the type itself; `dict[...]` as plain `dict`."""
    kinds = typing.get_args(hint) if typing.get_origin(hint) in (types.UnionType, typing.Union) else (hint,)
    return tuple(dict if typing.get_origin(kind) is dict else kind for kind in kinds)


def _is_mapping(hint: Any) -> bool:
    """Whether keys below are free (`dict[...]`)."""
    return _alternatives(hint)[0] is dict


def _hints(cls: type, value: dict[str, Any]) -> dict[str, Any]:
    hints = {name: hint for name, hint in _type_hints(cls).items() if name in _fields(cls)}
    if hasattr(cls, "field_types"):
        hints |= cls.field_types(value)
    return hints


@functools.cache
def _type_hints(cls: type) -> dict[str, Any]:
    return typing.get_type_hints(cls)


def _fields(cls: type) -> dict[str, dataclasses.Field]:
    return {field.name: field for field in dataclasses.fields(cls) if field.init}


def _has_default(field: dataclasses.Field) -> bool:
    return field.default is not dataclasses.MISSING or field.default_factory is not dataclasses.MISSING


@functools.cache
def _meanings(cls: type) -> dict[str, str]:
    """What the string or comment beside each field of a dataclass says."""
    source = textwrap.dedent(inspect.getsource(cls))
    lines = source.splitlines()
    body = typing.cast(ast.ClassDef, ast.parse(source).body[0]).body
    found = {}
    for node, following in zip(body, [*body[1:], None], strict=True):
        if not isinstance(node, ast.AnnAssign) or not isinstance(node.target, ast.Name):
            continue
        if isinstance(following, ast.Expr) and isinstance(following.value, ast.Constant):
            text = str(following.value.value)
        else:
            _, _, text = lines[(node.end_lineno or 1) - 1][node.end_col_offset or 0 :].partition("#")
        found[node.target.id] = " ".join(text.split())
    return found
