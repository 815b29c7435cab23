"""The study around the runs: what is run once, what counts as finished, how numbers of seeds become one."""

import json
from pathlib import Path

import pytest

from avssl.errors import ConfigError, UsageError
from eval.robustness.__main__ import main
from eval.robustness.study import Study
from eval.robustness.summary import Results

ROOT = Path(__file__).parents[2]
TREE = {
    "name": "tiny",
    "training": {"warm_up_steps": 3, "steps": 2, "batch_size": 8},
    "task": {"name": "xid", "negatives": 8},
    "worlds": [
        {"name": "clean", "clips": 24, "held_out": 12, "classes": 3},
        {"name": "noisy", "clips": 24, "held_out": 12, "classes": 3, "mismatch": 0.5},
        {"name": "real", "kind": "real"},
    ],
    "methods": [
        {"name": "xid", "label": "xID"},
        {"name": "oracle", "oracle": True, "task": {"weights": {}}},
        {"name": "robust", "task": {"weights": {}, "soft": {}}},
        {"name": "late", "task": {"weights": {}}, "training": {"warm_up_steps": 4}},
    ],
    "blocks": [
        {"worlds": ["noisy"], "methods": ["xid", "oracle", "robust", "late"], "seeds": 1},
        {"worlds": ["noisy"], "methods": ["xid"], "seeds": 2},
    ],
}


def study(**changes):
    from avssl.config import build

    return build(Study, TREE | changes)


def test_every_run_is_made_once_and_shares_its_start_with_the_right_ones():
    runs = {run.name: run for run in study().runs()}
    assert set(runs) == {"noisy-xid-0", "noisy-oracle-0", "noisy-robust-0", "noisy-late-0", "noisy-xid-1"}
    starts = {name: run.start for name, run in runs.items()}
    assert starts["noisy-xid-0"] == starts["noisy-oracle-0"] == starts["noisy-robust-0"]
    assert len({starts[name] for name in ("noisy-xid-0", "noisy-xid-1", "noisy-late-0")}) == 3


def test_a_changed_setting_makes_a_run_count_as_not_finished():
    digests = {run.name: run.digest for run in study().runs()}
    longer = {run.name: run for run in study(training=TREE["training"] | {"steps": 3}).runs()}
    assert all(longer[name].digest != digest for name, digest in digests.items())
    assert {run.start for run in longer.values()} == {run.start for run in study().runs()}, (
        "the first phase is as it was"
    )
    relabelled = [method | {"label": "other"} for method in TREE["methods"]]
    assert {run.name: run.digest for run in study(methods=relabelled).runs()} == digests


def test_a_block_that_names_nothing_is_an_error():
    with pytest.raises(ConfigError, match=r"'robus'.*did you mean 'robust'"):
        study(blocks=[{"worlds": ["clean"], "methods": ["robus"], "seeds": 1}])


@pytest.mark.parametrize("path", sorted((ROOT / "eval/robustness").glob("*.yaml")), ids=lambda path: path.stem)
def test_the_shipped_studies_name_tasks_that_exist(path):
    from avssl import config
    from avssl.tasks.xid_config import XIDConfig

    runs = Study.read(path).runs()
    assert runs
    for run in runs:
        first = config.build(XIDConfig, run.task, "task")
        first.check_change(config.build(XIDConfig, config.merged(run.task, run.method.task), "task"))
        assert run.method.oracle <= ("weights" in run.method.task)


def test_a_study_runs_stops_and_goes_on(tmp_path, monkeypatch, capsys):
    monkeypatch.delenv("AVSSL_MEDIA", raising=False)
    blocks = [{"worlds": ["noisy", "real"], "methods": ["xid", "oracle", "robust"], "seeds": 1}]
    path = tmp_path / "tiny.yaml"
    expect = [{"world": "noisy", "method": "xid", "measure": "auroc", "at_least": 1.1}]
    path.write_text(json.dumps(TREE | {"blocks": blocks, "expect": expect}))
    result = tmp_path / "result.json"
    arguments = [str(path), "--work", str(tmp_path / "work"), "--result", str(result), "--processes", "1"]
    assert main(arguments) == 1
    printed = capsys.readouterr()
    assert "skipped: real" in printed.err and "missed: auroc of xid in noisy" in printed.err
    first = json.loads(result.read_text())
    assert [run["method"] for run in first["runs"]] == ["xid", "oracle", "robust"]
    assert first["environment"]["packages"]["torch"] and first["skipped"] == ["real"]
    assert "weights_right" in first["runs"][2]["end"] and "soft_class" in first["runs"][2]["end"]

    (tmp_path / "work" / "noisy-oracle-0.json").unlink()
    others = (tmp_path / "work" / "noisy-xid-0.json").stat().st_mtime_ns
    main(arguments)
    assert (tmp_path / "work" / "noisy-xid-0.json").stat().st_mtime_ns == others
    again = json.loads(result.read_text())
    assert [run["end"] for run in again["runs"]] == [run["end"] for run in first["runs"]], "the same numbers again"


def results(**values):
    """Results of the measure `m`: world_method=[a number a seed]."""
    runs = [
        {"world": name.split("_")[0], "method": name.split("_")[1], "seed": seed, "end": {"m": value}, "warm_up": {}}
        for name, numbers in values.items()
        for seed, value in enumerate(numbers)
    ]
    return Results({"runs": runs, "study": {"methods": []}})


def test_recovery_is_the_share_of_the_loss_that_is_won_back():
    found = results(clean_xid=[0.8, 1.0], noisy_xid=[0.5, 0.5], noisy_robust=[0.7, 0.9])
    share, low, high = found.recovered("clean", "noisy", "robust", "m")
    assert share == pytest.approx(0.75)
    assert low == pytest.approx((0.7 - 0.5) / (0.8 - 0.5)) and high == pytest.approx((0.9 - 0.5) / (1.0 - 0.5))
    with pytest.raises(UsageError, match="seeds"):
        results(clean_xid=[0.8], noisy_xid=[0.5, 0.5], noisy_robust=[0.7]).recovered("clean", "noisy", "robust", "m")


def test_spread_over_seeds():
    spread = results(clean_xid=[1.0, 3.0]).spread("clean", "xid", "m")
    assert (spread.mean, spread.seeds) == (2.0, 2) and spread.std == pytest.approx(2**0.5)
    assert results(clean_xid=[1.0]).spread("clean", "robust", "m") is None
