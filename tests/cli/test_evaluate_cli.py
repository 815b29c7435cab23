"""avssl-eval: from a config to results files, refusals included."""

import csv
import json
import sys
from pathlib import Path

import pytest
import yaml

from avssl.cli import evaluate
from avssl.evaluation.registry import PROTOCOLS, ProtocolEntry

RECIPES = sorted((Path(__file__).parents[2] / "eval").glob("*.yaml"))

PROTOCOL = '''
from dataclasses import dataclass
from typing import Literal

from avssl.evaluation.protocol import Outcome


@dataclass
class CountConfig:
    """Counts."""

    name: Literal["count"] = "count"
    upto: int = 4
    """How far."""
    broken: int = 0
    """How many items cannot be read."""


def run(config, out, advance):
    upto, broken = config.protocol.upto, config.protocol.broken
    advance(upto)
    return Outcome(
        {"accuracy": 0.5, "undefined": float("nan")},
        upto - broken,
        chance={"accuracy": 0.25},
        skipped=[{"item": f"{i}.wav", "cause": "cut short"} for i in range(broken)],
        tables={"classes": [{"class": "a, b", "accuracy": 0.25}, {"class": "c", "accuracy": 0.75}]},
    )
'''


@pytest.fixture
def recipe(tmp_path, monkeypatch):
    """A YAML file of the protocol `count`."""
    (tmp_path / "counting_protocol.py").write_text(PROTOCOL)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(PROTOCOLS, "count", ProtocolEntry("counting_protocol:CountConfig", "counting_protocol:run"))
    path = tmp_path / "count.yaml"
    path.write_text(f"name: counted\nout: {tmp_path / 'out'}\nprotocol: {{name: count}}\n")
    yield path
    sys.modules.pop("counting_protocol", None)


def call(*words):
    with pytest.raises(SystemExit) as caught:
        evaluate.main([str(word) for word in words])
    return caught.value.code


def test_results_tell_what_a_number_depends_on(recipe, tmp_path, capsys):
    assert call("--config", recipe, "--protocol.upto", "7", "--seed", "3") == 0
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert results["metrics"] == {"accuracy": 0.5, "undefined": None} and results["chance"] == {"accuracy": 0.25}
    assert results["counts"] == {"items": 7, "skipped": 0} and results["seed"] == 3
    assert results["config"]["protocol"] == {"name": "count", "upto": 7, "broken": 0}
    assert {"commit", "packages", "cpu", "cores", "date"} <= set(results["environment"])
    with (tmp_path / "out" / "classes.csv").open() as file:
        assert [(row["class"], float(row["accuracy"])) for row in csv.DictReader(file)] == [("a, b", 0.25), ("c", 0.75)]
    printed = capsys.readouterr().out
    assert "counted (7 items)" in printed and "chance 0.250" in printed and "undefined" in printed


def test_json_is_the_file(recipe, tmp_path, capsys):
    assert call("--config", recipe, "--json") == 0
    assert json.loads(capsys.readouterr().out) == json.loads((tmp_path / "out" / "results.json").read_text())


def test_missing_items_are_no_score_unless_allowed(recipe, tmp_path, capsys):
    assert call("--config", recipe, "--protocol.broken", "2") == 1
    assert not (tmp_path / "out" / "results.json").exists()
    assert "2 of 4 items could not be used, the first: 0.wav (cut short)" in capsys.readouterr().err
    assert call("--config", recipe, "--protocol.broken", "2", "--allow_missing", "2") == 0
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert results["counts"] == {"items": 2, "skipped": 2} and results["skipped"][1]["item"] == "1.wav"
    assert "skipped 1.wav: cut short" in capsys.readouterr().out


def test_no_items_are_no_score(recipe, capsys):
    assert call("--config", recipe, "--protocol.upto", "0") == 1
    assert "no item" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ([], "no --config"),
        (["--protocol.name", "cuont"], "did you mean 'count'?"),
        (["--name", "x", "--out", "y"], "protocol"),
        (["--protocol.name", "count", "--protocol.uptoo", "1"], "upto"),
        (["--protocol.name", "count", "--allow_missing", "-1", "--name", "x", "--out", "y"], "allow_missing"),
    ],
)
def test_wrong_use_is_one_sentence(recipe, capsys, words, says):
    assert call(*words) == 2
    error = capsys.readouterr().err
    assert says in error and error.count("\n") == 1


def test_help_lists_the_values_of_a_protocol(recipe, capsys):
    assert call("--config", recipe, "--help") == 0
    text = capsys.readouterr().out
    assert "--protocol.upto integer (4)" in text and "How far." in text and "--allow_missing" in text
    assert call("--help") == 0
    assert "protocols: " in capsys.readouterr().out


def test_a_model_is_named_by_its_digest(recipe, tmp_path):
    assert call("--config", recipe, "--model", "tiny") == 0
    model = json.loads((tmp_path / "out" / "results.json").read_text())["model"]
    assert model["source"] == "tiny" and [len(v) for k, v in model.items() if "sha256" in k] == [64, 64]
    assert call("--config", recipe, "--model", str(tmp_path / "none")) == 1


@pytest.mark.parametrize(
    "path", sorted((Path(__file__).parents[2] / "eval").glob("*.yaml")), ids=lambda path: path.stem
)
def test_every_recipe_resolves_and_is_named_like_its_file(path, capsys, tmp_path):
    assert call("--config", path, "--print-config") == 0
    resolved = capsys.readouterr().out
    assert yaml.safe_load(resolved)["name"] == path.stem
    again = tmp_path / "resolved.yaml"
    again.write_text(resolved)
    assert call("--config", again, "--print-config") == 0
    assert capsys.readouterr().out == resolved
