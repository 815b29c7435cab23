"""Tables and figures: made from result files, and the page in docs holds what its files give."""

import json
from pathlib import Path

import pytest

from avssl.errors import UsageError
from eval.robustness import page
from eval.robustness.study import Study

ROOT = Path(__file__).parents[2]


def write_results(folder, name, drop=()):
    """A result file of the shipped study `name` with made-up numbers: method number / 100, plus 0.01 a seed."""
    study = Study.read(ROOT / page.STUDIES[name])
    from avssl.config import plain

    numbers = {method.name: number / 100 for number, method in enumerate(study.methods)}
    runs = []
    for run in study.runs():
        value = numbers[run.method.name] + 0.01 * run.seed
        keys = ["probe_video", "probe_audio", "class_at_1", "instance_at_1", "instance_at_10", "auroc"]
        end = dict.fromkeys(keys, value) | {"class_at_1_chance": 0.125}
        if run.world.name == "mismatch_0":
            end = {key: x + 0.5 for key, x in end.items()}
        if "soft" in run.method.task:
            end |= {"soft_class": value, "soft_class_right": 0.9, "soft_class_chance": 0.125}
        if "weights" in run.method.task:
            end |= {"weights_right": [0.0] * 8 + [0.5, 0.5], "weights_wrong": [0.5, 0.5] + [0.0] * 8}
        runs.append(
            {"world": run.world.name, "method": run.method.name, "seed": run.seed, "end": end}
            | {"warm_up": {"auroc": 0.7}, "auroc_by_step": [[50, 0.8], [100, 0.9]]}
        )
    machine = {"cores": 2, "cpu": "a processor", "packages": {"torch": "2"}, "commit": "abc", "date": "2026-01-01T00"}
    tree = {"environment": machine, "wall_s": 120.0, "processes": 2, "skipped": [], "study": plain(study)}
    (folder / f"{name}.json").write_text(json.dumps(tree | {"runs": [r for r in runs if r["method"] not in drop]}))


def test_tables_hold_the_numbers_of_the_files(tmp_path):
    for name in page.STUDIES:
        write_results(tmp_path, name)
    text = "before\n" + "".join(f"<!-- table {name} -->\nold\n<!-- end -->\n" for name in page.TABLES) + "after\n"
    filled = page.filled(text, tmp_path)
    assert "old" not in filled and filled.startswith("before\n") and filled.endswith("<!-- end -->\nafter\n")
    assert page.filled(filled, tmp_path) == filled, "a second time changes nothing"
    tables = dict(part.split(" -->\n", 1) for part in filled.split("<!-- table ")[1:])
    # W-xID is the third method: 0.02, 0.03, … 0.06 over five seeds.
    assert "W-xID" in tables["mismatch_50"] and "4.0 ± 1.6" in tables["mismatch_50"]
    assert "Chance: class R@1 0.125, soft mass 0.125. 5 seeds." in tables["mismatch_50"]
    # xID falls from 0.52 to 0.02 on average; W-xID reaches 0.04, which is 4 % of that, for every draw of seeds.
    assert "4 (" in next(line for line in tables["recovery_50"].splitlines() if "| W-xID" in line)
    assert "oracle" in tables["recovery_50"] and "oracle" not in tables["mismatch_0"]
    assert "W-xID, kappa 0.1" in tables["why"] and "xID, 800 clips" in tables["why"]
    assert "90.0 ± 0.0" in tables["asked"]
    assert "170 runs in 2 minutes, 2 processes of one thread on 2 cores" in tables["machine"]


def test_figures_are_drawn(tmp_path):
    write_results(tmp_path, "robustness")
    page.draw(tmp_path, tmp_path / "figures")
    drawn = sorted((tmp_path / "figures").iterdir())
    assert [path.name for path in drawn] == ["robust-xid-noise.png", "robust-xid-soft.png", "robust-xid-weights.png"]
    first = [path.read_bytes() for path in drawn]
    assert all(content.startswith(b"\x89PNG") for content in first)
    page.draw(tmp_path, tmp_path / "figures")
    assert [path.read_bytes() for path in drawn] == first, "the same numbers give the same files"


def test_a_table_without_numbers_says_how_to_make_them(tmp_path):
    filled = page.filled("<!-- table real_50 -->\n<!-- end -->", tmp_path)
    assert "No numbers yet" in filled and "eval/robustness/real.yaml" in filled
    with pytest.raises(UsageError, match="no table 'unknown'"):
        page.filled("<!-- table unknown -->\n<!-- end -->", tmp_path)


def test_the_page_is_what_its_files_give():
    text = (ROOT / page.PAGE).read_text()
    assert page.filled(text, ROOT / page.RESULTS) == text, "run python -m eval.robustness.page"
