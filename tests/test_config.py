"""Typed configs: complete round trips, and errors that name the key and the nearest valid one."""

from dataclasses import dataclass, field
from typing import Any, Literal

import pytest
import yaml

from avssl import config
from avssl.errors import ConfigError


@dataclass
class Inner:
    """A section."""

    rate: float = 0.1
    """How fast."""
    size: tuple[int, int] = (2, 3)
    mode: Literal["fast", "slow"] = "fast"  # how careful
    extra: dict[str, Any] = field(default_factory=dict)


@dataclass
class Root:
    name: str
    inner: Inner
    maybe: Inner | None = None
    names: list[str] = field(default_factory=list)
    limit: int | None = None
    share: int | float = 1
    on: bool = False
    many: list[Inner] = field(default_factory=list)
    """Several of them."""


def build(**tree):
    return config.build(Root, {"name": "x", **tree})


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        ({"inner": {"raet": 1}}, "inner.raet: unknown key; did you mean 'inner.rate'?"),
        ({"rate": 1}, "rate: unknown key; did you mean 'inner.rate'?"),
        ({"zzz": 1}, "zzz: unknown key; valid: inner, limit, many, maybe, name, names, on, share"),
        ({"inner": {"rate": "fast"}}, "inner.rate: expected number, got 'fast'"),
        ({"inner": {"rate": True}}, "inner.rate: expected number, got True"),
        ({"inner": {"size": [1]}}, "inner.size: expected 2 values, got 1"),
        ({"inner": {"size": [1, "a"]}}, "inner.size[1]: expected integer, got 'a'"),
        ({"inner": {"mode": "medium"}}, "inner.mode: 'medium' is none of fast, slow"),
        ({"inner": 3}, "inner: expected a mapping with keys rate, size, mode, extra, got 3"),
        ({"names": "a"}, "names: expected list of text, got 'a'"),
        ({"many": [{}, {"raet": 1}]}, "many[1].raet: unknown key; did you mean 'many[1].rate'?"),
        ({"on": 1}, "on: expected true or false, got 1"),
        ({"limit": 1.5}, "limit: expected integer, got 1.5"),
        ({"share": "a"}, "share: expected integer or number, got 'a'"),
        ({"name": None}, "name: expected text, got None"),
    ],
)
def test_errors_name_the_key(tree, message):
    with pytest.raises(ConfigError) as error:
        build(**tree)
    assert str(error.value) == message


def test_a_missing_value_is_named():
    with pytest.raises(ConfigError, match=r"^name: missing"):
        config.build(Root, {})


def test_dump_and_read_give_the_same_tree(tmp_path):
    made = build(inner={"rate": 1e-7, "extra": {"a": [1, None]}}, maybe=None, names=["a", "1"], limit=None, share=0.5)
    path = tmp_path / "c.yaml"
    path.write_text(config.dump(made))
    assert config.build(Root, config.read(path)) == made
    assert "limit: null" in path.read_text()


@pytest.mark.parametrize(
    ("key", "text", "expected"),
    [
        ("inner.rate", "1e-4", ("inner", "rate", 1e-4)),
        ("inner.rate", "3", ("inner", "rate", 3.0)),
        ("name", "12", (None, "name", "12")),
        ("name", "true", (None, "name", "true")),
        ("names", "a/b", (None, "names", ["a/b"])),
        ("names", "[a, b]", (None, "names", ["a", "b"])),
        ("limit", "null", (None, "limit", None)),
        ("limit", "7", (None, "limit", 7)),
        ("inner.size", "[4, 5]", ("inner", "size", (4, 5))),
        ("inner.extra.key", "{a: 1}", ("inner", "extra", {"key": {"a": 1}})),
        ("maybe.rate", "2", ("maybe", "rate", 2.0)),
        ("inner.mode", "slow", ("inner", "mode", "slow")),
    ],
)
def test_command_line_values(key, text, expected):
    tree = {"name": "x"}
    config.override(Root, tree, key, text)
    made = config.build(Root, tree)
    section, name, value = expected
    assert getattr(getattr(made, section) if section else made, name) == value


def test_an_entry_of_a_list_is_addressed_by_its_number():
    tree = {"name": "x", "many": [{"rate": 1}, {}]}
    config.override(Root, tree, "many[1].mode", "slow")
    config.override(Root, tree, "many[0].extra.a.b", "[1]")
    made = config.build(Root, tree)
    assert made.many == [Inner(rate=1.0, extra={"a": {"b": [1]}}), Inner(mode="slow")]
    for key, message in (
        ("many[2].mode", "--many[2].mode: many has 2 entries, counted from 0"),
        ("names[0].mode", "--names[0].mode: names has 0 entries"),
        ("many[1].mood", "--many[1].mood: unknown key; did you mean 'many[i].mode'?"),
        ("many[one].mode", "--many[one].mode: unknown key"),
    ):
        with pytest.raises(ConfigError) as error:
            config.override(Root, tree, key, "slow")
        assert message in str(error.value)


def test_merging_goes_section_by_section():
    base = {"a": {"x": 1, "y": {"z": 2}}, "b": None, "c": [1]}
    changes = {"a": {"y": {"w": 3}}, "b": {"x": 4}, "c": [2], "d": 5}
    expected = {"a": {"x": 1, "y": {"z": 2, "w": 3}}, "b": {"x": 4}, "c": [2], "d": 5}
    assert config.merged(base, changes) == expected
    assert config.merged(base, {"a": None}) == {**base, "a": None}
    assert base["a"] == {"x": 1, "y": {"z": 2}}


def test_a_section_can_be_switched_off_and_on():
    tree = {"name": "x", "maybe": {"rate": 1}}
    config.override(Root, tree, "maybe", "null")
    assert config.build(Root, tree).maybe is None
    config.override(Root, tree, "maybe.mode", "slow")
    assert config.build(Root, tree).maybe == Inner(mode="slow")


@pytest.mark.parametrize("key", ["inner.raet", "rate", "maybe.rat"])
def test_unknown_options_name_the_nearest(key):
    with pytest.raises(ConfigError, match=r"unknown key; did you mean '(inner|maybe).rate'"):
        config.override(Root, {"name": "x"}, key, "1")


def test_options_tell_type_default_and_meaning():
    found = {option.key: option for option in config.options(Root)}
    assert found["inner.rate"] == ("inner.rate", "number", "0.1", "How fast.")
    assert found["inner.mode"] == ("inner.mode", "fast or slow", "fast", "how careful")
    assert found["name"].default == "required"
    assert found["maybe.size"].kind == "list of 2 integer"
    assert found["many"] == ("many", "list of sections", "[]", "Several of them.")
    assert found["many[i].rate"].meaning == "How fast."


def test_files_that_are_no_config(tmp_path):
    with pytest.raises(ConfigError, match="cannot be read"):
        config.read(tmp_path / "absent.yaml")
    for text, reason in (("a: [", "not valid YAML"), ("- 1", "expected a mapping")):
        path = tmp_path / "c.yaml"
        path.write_text(text)
        with pytest.raises(ConfigError, match=reason):
            config.read(path)


def test_numbers_with_exponents_are_numbers(tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text("a: 1e-4\nb: 2E5\nc: 1.5e3\nd: 1e\n")
    assert config.read(path) == {"a": 1e-4, "b": 2e5, "c": 1500.0, "d": "1e"}
    assert yaml.safe_load("1e-4") == "1e-4", "the standard reader's surprise is gone: drop our own"
