"""The study of AVSA: which runs share what, a whole small one, its tables and figures, and the page in docs."""

import dataclasses
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch

from avssl.config import plain
from avssl.errors import ConfigError, UsageError
from eval.alignment import page
from eval.alignment.learn import Learner
from eval.alignment.measure import features, measure
from eval.alignment.study import Block, Method, Run, Study, Training, World
from eval.alignment.worlds import load, render

ROOT = Path(__file__).parents[2]
TRAINING = Training(views_a_step=16, first_steps=2, steps=2, warm_up_steps=1, width=4)
WORLD = World("w", scenes=6, held_out=5, objects=(2, 3))
METHODS = {
    "avc": Method("avc", mode="avc", views=1, depth=None),
    "avts": Method("avts", mode="avts"),
    "avsa": Method("avsa", hearing="stereo"),
    "scratch": Method("scratch", curriculum=False),
}


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    folder = tmp_path_factory.mktemp("worlds")
    with ThreadPoolExecutor(1) as pool:
        render(WORLD, folder, pool)
        before = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
        render(WORLD, folder, pool)
    assert {path: path.stat().st_mtime_ns for path in folder.iterdir()} == before, "what is there is not made again"
    return load(WORLD, folder)


def test_scenes_of_a_world(scenes):
    train, held_out = scenes
    assert train.video.shape == (6, 16, 80, 160, 3) and train.power.shape == (6, 80, 40, 10)
    assert len(held_out) == 5 and held_out.level == train.level
    assert not np.array_equal(train.video[0], held_out.video[0])


@pytest.mark.parametrize("name", METHODS)
def test_a_run_trains_and_is_repeatable(scenes, name):
    def trained():
        learner = Learner(scenes[0], Run(WORLD, METHODS[name], 0, TRAINING))
        first, second = learner.first_phase(), learner.second_phase()
        return first, second, learner.task

    (first, second, task), (_, again, _) = trained(), trained()
    assert second == again
    assert ("beats_hard" in first[0]) == (name == "scratch") and ("beats_hard" in second[0]) == (name != "avc")
    found = measure(task.model, Run(WORLD, METHODS[name], 0, TRAINING), *scenes)
    json.dumps(found, allow_nan=False)
    assert ("own_view" in found) == (name != "avc") == ("avsa_bin_4_transformer" in found)
    assert found["together_changes"] < 0.02 and len(found["score_by_turn"]) == 8


def test_a_method_goes_on_from_the_shared_first_phase(scenes):
    first = Learner(scenes[0], Run(WORLD, METHODS["avc"], 3, TRAINING))
    first.first_phase()
    other = Learner(scenes[0], Run(WORLD, dataclasses.replace(METHODS["avts"], depth=1), 3, TRAINING))
    other.start_from(first)
    assert other.steps == 2
    theirs, own = first.task.state_dict(), other.task.state_dict()
    assert set(theirs) < set(own)
    assert all(torch.equal(own[key], value) for key, value in theirs.items())


def test_features_do_not_depend_on_the_model_seed_but_looks_are_equal(scenes):
    run = Run(WORLD, METHODS["avsa"], 0, TRAINING)
    made = [
        features(Learner(scenes[0], dataclasses.replace(run, seed=s)).task.model.eval(), run, scenes[1], 2)
        for s in (0, 1)
    ]
    assert torch.equal(made[0].view_deg, made[1].view_deg) and torch.equal(made[0].turn_deg, made[1].turn_deg)
    assert not torch.equal(made[0].video, made[1].video)
    assert made[0].video.shape == (10, 4, 32) and made[0].row.tolist() == [0, 1, 2, 3, 4] * 2


def test_runs_share_a_first_phase_where_it_is_the_same():
    def run(**changes):
        return Run(WORLD, Method("x", **changes), 0, TRAINING)

    base = run()
    assert run(views=8).start == run(depth=0).start == run(context="mlp").start == base.start
    assert base.start not in {run(hearing="mono").start, run(curriculum=False).start}
    assert dataclasses.replace(base, seed=1).start != base.start
    assert dataclasses.replace(base, training=Training(steps=9)).digest != base.digest
    longer = dataclasses.replace(base, training=dataclasses.replace(TRAINING, steps=9))
    assert longer.start == base.start and longer.digest != base.digest
    renamed = dataclasses.replace(base, world=dataclasses.replace(WORLD, name="other"))
    assert renamed.digest == base.digest and renamed.name != base.name
    assert run(views=8).digest != base.digest


def test_what_does_not_fit_is_refused():
    with pytest.raises(ConfigError, match="avc alone"):
        Method("x", mode="avc")
    with pytest.raises(ConfigError, match="none of the methods"):
        Study("s", TRAINING, [WORLD], [Method("avsa")], [Block("w", ["avsb"], 1)])


@pytest.mark.parametrize("name", ["full", "small"])
def test_shipped_studies(name):
    study = Study.read(ROOT / f"eval/alignment/{name}.yaml")
    runs = study.runs()
    assert len({run.name for run in runs}) == len(runs) == len({run.digest for run in runs})


def study_runs():
    return Study.read(ROOT / page.STUDY).runs()


def write_results(folder):
    """A result file of the shipped study with made-up numbers: method number / 100, plus 0.01 a seed."""
    study = Study.read(ROOT / page.STUDY)
    numbers = {method.name: number / 100 for number, method in enumerate(study.methods)}
    keys = ("avsa_bin_4", "avsa_bin_1", "avc_bin_4", "avc_bin_1", "turn_lowers", "together_changes")
    predicted = ("avsa_bin_4_transformer", "avc_bin_4_transformer")
    runs = []
    for run in study.runs():
        value = 0.5 + numbers[run.method.name] + 0.01 * run.seed
        end = dict.fromkeys(keys, value) | (dict.fromkeys(predicted, value + 0.2) if run.method.depth else {})
        end |= {"yaw_4": 60.0, "score_yaw_error_deg": 70.0, "score_by_turn": [value] * 8}
        runs.append({"world": run.world.name, "method": run.method.name, "seed": run.seed, "end": end})
        runs[-1] |= {"cpu_s": 60.0, "first_cpu_s": 30.0}
        if run.method.name == "chart_tetrahedral":
            end["score_by_turn"] = [0.5] + [0.6 if run.seed else 0.4] + [0.1] * 6
    machine = {"cores": 2, "cpu": "a processor", "packages": {"torch": "2"}, "commit": "abc", "date": "2026-01-01T00"}
    tree = {
        "environment": machine,
        "wall_s": 120.0,
        "processes": 2,
        "skipped": [],
        "missing": 3,
        "study": plain(study),
        "runs": runs,
    }
    (folder / "alignment.json").write_text(json.dumps(tree))


def test_tables_hold_the_numbers_of_the_files(tmp_path):
    write_results(tmp_path)
    text = "".join(f"<!-- table {name} -->\nold\n<!-- end -->\n" for name in page.TABLES)
    made = page.filled(text, tmp_path)
    assert "old" not in made and page.filled(made, tmp_path) == made
    tables = dict(part.split(" -->\n", 1) for part in made.split("<!-- table ")[1:])
    row = next(line for line in tables["pretraining"].splitlines() if "| AVTS, with transformer" in line)
    assert "54.0 ± 1.6" in row and "74.0 ± 1.6" in row and "60.0 ± 0.0" in row  # method 2: 0.52 to 0.56
    (row,) = (line for line in tables["paper"].splitlines() if "| AVSA, with transformer" in line)
    assert [cell.strip() for cell in row.split("|")[2:6]] == ["76.0 ± 1.6", "75.0 ± 1.0", "76.0 ± 1.6", "70.0"]
    lines = [line for line in tables["gain"].splitlines()[2:] if line.startswith("|")]
    gains = [[cell.strip() for cell in line.split("|")[2:5]] for line in lines]
    assert gains == [["+24.0 ± 0.0"] * 3, ["+4.0 ± 0.0"] * 3, ["+3.0 ± 0.0", "", ""], ["+3.0 ± 0.0", "", ""]]
    goals = tables["goals"].splitlines()
    assert sum("at least 10 points" in line and "**no**" in line for line in goals) == 5
    assert sum("at least 10 points" in line and "| yes" in line for line in goals) == 3
    assert sum("in the paper's order" in line and "yes" in line for line in goals) == 2
    assert "0.540" in next(line for line in tables["scores"].splitlines() if "AVTS" in line)
    assert "1 of 3" in tables["chart"] and "| 1.7 " in tables["chart"]
    assert (
        f"{len(study_runs())} runs, " in tables["machine"] and "3 runs of the study were not made" in tables["machine"]
    )
    with pytest.raises(UsageError, match="no table 'unknown'"):
        page.filled("<!-- table unknown -->\n<!-- end -->", tmp_path)
    page.draw(tmp_path, tmp_path / "figures")
    drawn = sorted((tmp_path / "figures").iterdir())
    assert [path.name for path in drawn] == ["avsa-bin.png", "avsa-turns.png"]
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in drawn)


def test_the_page_is_what_its_files_give():
    text = (ROOT / page.PAGE).read_text()
    assert page.filled(text, ROOT / page.RESULTS) == text, "run python -m eval.alignment.page"


def test_blocks_come_one_after_another():
    methods = [Method("avsa"), Method("other", depth=0)]
    study = Study("s", TRAINING, [WORLD], methods, [Block("w", ["other"], 2), Block("w", ["avsa", "other"], 3)])
    runs = {run.name: run for run in study.runs()}
    assert list(runs)[:2] == ["w-other-0", "w-other-1"] and len(runs) == 6
    assert [study.block_of(runs[f"w-other-{seed}"]) for seed in range(3)] == [0, 0, 1]
    assert study.block_of(runs["w-avsa-0"]) == 1
    assert runs["w-avsa-1"].first == runs["w-other-1"].first and runs["w-avsa-1"].first.method.mode == "avc"
