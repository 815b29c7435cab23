"""The parsers of this project meet damaged input with an answer: the same few hundred mutations in every run."""

import random

import pytest

from fuzz.mutations import mutated
from fuzz.targets import TARGETS

INPUTS = {"weights": 60, "yaml": 60, "table": 80, "shards": 60}


@pytest.mark.parametrize("name", sorted(TARGETS))
def test_well_formed_input_is_read(name):
    for seed in TARGETS[name].seeds():
        TARGETS[name].run(seed)


@pytest.mark.parametrize("name", sorted(TARGETS))
def test_damage_is_answered(name):
    target, draw = TARGETS[name], random.Random(name)
    seeds = target.seeds()
    for _ in range(INPUTS.get(name, 200)):
        target.run(mutated(draw.choice(seeds), draw))


@pytest.mark.parametrize("data", [b"", b"\0", b"{", b"[" * 100_000, b"\xff" * 1000, b'{"a":' * 20_000], ids=range(6))
@pytest.mark.parametrize("name", sorted(TARGETS))
def test_extremes_are_answered(name, data):
    """Nothing, one byte, and nesting deeper than a parser that calls itself can go."""
    TARGETS[name].run(data)
