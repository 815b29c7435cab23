"""Phases: what is resolved and refused when the config is read, and that a border leaves no trace of its own."""

import copy
import json

import kill_and_resume
import pytest
import torch
from training_tools import make_config, metrics_of, write_config

from avssl.cli.train import read_config
from avssl.errors import ConfigError
from avssl.training.course import Course
from avssl.training.loop import Trainer

FIRST = {"name": "first", "steps": 4}
SECOND = {
    "name": "second",
    "steps": 5,
    "task": {"temperature": 0.2, "bank_momentum": 0.3},
    "optim": {"lr": 5e-4, "weight_decay": 0.0},
    "schedule": {"name": "cosine", "warmup_steps": 2},
}


@pytest.fixture
def phased(tree):
    tree["run"]["steps"] = None
    return {**tree, "phases": copy.deepcopy([FIRST, SECOND])}


def finish(tree, **changes):
    said = []
    trainer = Trainer(make_config(tree, **changes), say=said.append)
    assert trainer.run() == "finished"
    return trainer, said


class KilledError(Exception):
    pass


def run_until(tree, step):
    """Run and die without a checkpoint of its own after `step`."""
    trainer = Trainer(make_config(tree), say=lambda line: None)

    def die():
        if trainer.step == step:
            raise KilledError

    with pytest.raises(KilledError):
        trainer.run(die)


def test_phases_resolve_onto_the_run(phased):
    first, second = make_config(phased).resolved_phases()
    assert (first.task.temperature, first.optim.lr, first.schedule.name) == (0.07, 2e-4, "constant")
    assert (second.task.temperature, second.optim.lr, second.schedule.name) == (0.2, 5e-4, "cosine")
    assert second.task.negatives == first.task.negatives == 32
    assert second.optim.betas == first.optim.betas
    assert second.length(rows=24) == 5


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"task": {"temprature": 1.0}},
            "phases[1].task.temprature: unknown key; did you mean 'phases[1].task.temperature'?",
        ),
        ({"optim": {"lrs": 1.0}}, "phases[1].optim.lrs: unknown key; did you mean 'phases[1].optim.lr'"),
        ({"schedule": {"name": "linear"}}, "phases[1].schedule.name: 'linear' is none of"),
        ({"task": {"temperature": "hot"}}, "phases[1].task.temperature: expected number, got 'hot'"),
        ({"task": {"temperature": 0.0}}, "phases[1].task.temperature is 0.0"),
        ({"task": {"loss": "siglip"}}, "phases[1].task.loss goes from 'nce' to 'siglip'"),
        (
            {"task": {"weights": {"minimun": 0.1}}},
            "phases[1].task.weights.minimun: unknown key; did you mean 'phases[1].task.weights.minimum'?",
        ),
        ({"task": {"name": "avsa"}}, "phases[1].task.name is 'avsa', but a run keeps its task 'xid'"),
        ({"passes": 1.0}, "'second': steps and passes: give exactly one"),
        ({"steps": 0}, "'second': steps and passes: 0 is given, but must be positive"),
        ({"steps": None}, "'second': steps and passes: give exactly one"),
        ({"name": "first"}, "phases[1].name is 'first' like that of an earlier one"),
        ({"lenght": 3}, "phases[1].lenght: unknown key"),
    ],
)
def test_the_whole_is_checked_when_it_is_read(phased, change, message):
    phased["phases"][1] |= change
    with pytest.raises(ConfigError) as error:
        make_config(phased)
    assert message in str(error.value)


def test_a_run_has_one_kind_of_length(phased):
    with pytest.raises(ConfigError, match=r"run\.steps and run\.passes: must be null where phases are given"):
        make_config(phased, **{"run.steps": 4})


def test_options_change_a_phase(phased, tmp_path):
    path = str(write_config(phased, tmp_path / "c.yaml"))
    config = read_config(path, ["--phases[1].steps", "7", "--phases[0].task.temperature=0.5"])
    first, second = config.resolved_phases()
    assert (second.steps, first.task.temperature, second.task.temperature) == (7, 0.5, 0.2)
    with pytest.raises(ConfigError, match=r"--phases\[2\]\.steps: phases has 2 entries"):
        read_config(path, ["--phases[2].steps", "7"])
    with pytest.raises(ConfigError, match=r"phases\[1\]\.task\.negatvies: unknown key; did you mean"):
        read_config(path, ["--phases[1].task.negatvies", "7"])


def test_metrics_carry_the_phase_and_the_schedule_starts_anew(phased, tmp_path):
    trainer, said = finish(phased, **{"run.log_every": 3})
    records = metrics_of(trainer.folder.path)
    assert [(r["step"], r["phase"]) for r in records] == [(3, "first"), (4, "first"), (6, "second"), (9, "second")]
    course = Course(trainer.config.resolved_phases(), rows=24)
    rates = [course.learning_rate(step) for step in range(1, 5)]
    course.enter_next(4)
    rates += [course.learning_rate(step) for step in range(5, 10)]
    assert rates == pytest.approx([2e-4] * 4 + [2.5e-4, 5e-4, 3.75e-4, 1.25e-4, 0.0], abs=1e-12)
    assert [r["lr"] for r in records] == [rates[step - 1] for step in (3, 4, 6, 9)]
    assert any("phase 'second' (2 of 2) begins after step 4: 5 steps" in line for line in said)
    assert (trainer.folder.checkpoints / "step-00000009.pt").exists()


def test_a_border_between_equal_phases_changes_nothing(tree, phased, tmp_path):
    """Model, banks, Z, moments of the optimiser and order of rows pass over it."""
    finish(tree, **{"run.steps": 9, "run.dir": str(tmp_path / "one")})
    equal = [FIRST, {"name": "second", "steps": 5}]
    finish(phased, **{"phases": equal, "run.dir": str(tmp_path / "two")})
    (one, rows, state), (two, other_rows, other) = map(
        kill_and_resume.deterministic, (tmp_path / "one", tmp_path / "two")
    )
    assert [{k: v for k, v in record.items() if k != "phase"} for record in two] == one
    assert rows == other_rows
    assert kill_and_resume.same(state["task"], other["task"])
    assert kill_and_resume.same(state["optimizer"], other["optimizer"])


def test_the_optimiser_starts_anew_where_it_is_told_to(phased, tmp_path):
    kept, _ = finish(phased, **{"run.dir": str(tmp_path / "kept")})
    phased["phases"][1]["keep_optimizer"] = False
    anew, _ = finish(phased, **{"run.dir": str(tmp_path / "anew")})
    for trainer, steps in ((kept, 9), (anew, 5)):
        optimizer = trainer.learner.optimizer.optimizer
        assert {int(state["step"]) for state in optimizer.state.values()} == {steps}
        assert optimizer.param_groups[0]["weight_decay"] == 0.0
    losses = [[record["loss"] for record in metrics_of(trainer.folder.path)] for trainer in (kept, anew)]
    assert losses[0][:5] == losses[1][:5]  # the first step after the border has seen the same weights
    assert losses[0][5] != losses[1][5]


ROBUST = {"loss": "softmax", "weights": {}, "soft": {"query": "memory"}}
AGREEMENT = {"agreement": {"positives": 3, "negatives": 8, "every_passes": 1}}


@pytest.mark.parametrize(
    ("task", "steps"),
    [({"temperature": 0.2}, (3, 4, 5, 7)), (ROBUST, (4, 6)), (AGREEMENT, (4, 8))],
    ids=["settings", "robust", "cma"],
)
def test_deaths_around_the_border_leave_no_trace(phased, tmp_path, task, steps):
    """Before it, right at it (its checkpoint is written, the next phase not begun), after it; also while the later
    phase's statistics are being measured and its positives mined for the second time."""
    phased["phases"][1]["task"] = task
    finish(phased, **{"run.dir": str(tmp_path / "whole")})
    for step in steps:
        folder = tmp_path / f"died_{step}"
        phased["run"]["dir"] = str(folder)
        run_until(phased, step)
        _, said = finish(phased)
        assert any("continuing after step" in line for line in said)
        assert kill_and_resume.compare(tmp_path / "whole", folder) == []


def test_kills_across_the_border_leave_no_trace(phased, tmp_path):
    config = write_config(phased, tmp_path / "config.yaml")
    differences, killed = kill_and_resume.check(config, tmp_path, steps=9, kills=3)
    assert not differences and killed


def test_phases_are_appended_and_lengthened(tree, phased, tmp_path):
    """A finished run without phases goes on in a second one, which then gets longer: as if planned so."""
    whole = copy.deepcopy(phased)
    whole["phases"][1]["schedule"] = {}
    finish(whole, **{"run.dir": str(tmp_path / "whole")})
    finish(tree, **{"run.steps": 4})
    for steps in (2, 5):
        whole["phases"][1]["steps"] = steps
        trainer, _ = finish(whole)
    assert trainer.step == 9
    assert [{k: v for k, v in record.items() if k != "phase"} for record in metrics_of(tree["run"]["dir"])] == [
        {k: v for k, v in record.items() if k != "phase"} for record in metrics_of(tmp_path / "whole")
    ]
    _, said = finish(whole)
    assert "raise the last phase's length or add a phase to go on" in said[-1]


def test_a_phase_cut_short_gives_way_to_the_next(phased):
    phased["phases"][0]["steps"] = 30
    run_until(phased, 6)
    phased["phases"][0]["steps"] = 2  # six are done
    trainer, _ = finish(phased)
    assert [record["phase"] for record in metrics_of(trainer.folder.path)] == ["first"] * 6 + ["second"] * 5


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda phases: phases[0].update(steps=5), "was started with phases[0].steps 4, now it is 5"),
        (lambda phases: phases[0].update(task={"temperature": 0.5}), "phases[0].task.temperature 0.07"),
        (lambda phases: phases[1].update(keep_optimizer=False), "phases[1].keep_optimizer True"),
        (lambda phases: phases[1]["task"].update(bank_momentum=0.9), "phases[1].task.bank_momentum 0.3"),
        (lambda phases: phases.pop(), "phases[1].task.name 'xid', now it is None"),
    ],
)
def test_phases_that_were_entered_are_fixed(phased, change, message):
    run_until(phased, 7)
    change(phased["phases"])
    with pytest.raises(ConfigError) as error:
        make_trainer = Trainer(make_config(phased), say=lambda line: None)
        make_trainer.close()
    assert message in str(error.value)


def test_phases_to_come_are_free(phased):
    run_until(phased, 4)  # the first is complete, the second not begun
    phased["phases"][1] = {"name": "other", "passes": 1.0, "task": {"temperature": 0.5}, "keep_optimizer": False}
    trainer, _ = finish(phased)
    assert trainer.step == 7
    assert metrics_of(trainer.folder.path)[-1]["phase"] == "other"


def test_the_best_checkpoint_is_of_the_present_phase(phased):
    """Losses of different objectives cannot be compared: a hotter softmax has a lower loss at once."""
    phased["phases"][1]["task"]["temperature"] = 0.01
    trainer, _ = finish(phased)
    best = torch.load(trainer.folder.checkpoints / "best.pt", weights_only=True)
    losses = [json.loads(line)["loss"] for line in trainer.folder.metrics.read_text().splitlines()]
    assert min(losses[4:]) > max(losses[:4])
    assert best["course"]["phase"] == 1
