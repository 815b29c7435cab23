"""Exact resume: the state dict of a task is all it needs, at every step and across phases."""

import copy

import pytest
import torch
from task_tools import AGREEMENT, COMBINATIONS, QUEUE, ROBUST, STEPS, TEMPERATURES, WEIGHTS, make_config, make_task, run

from avssl.errors import ConfigError


@pytest.mark.parametrize("name", COMBINATIONS)
def test_a_run_continues_from_its_state_bit_for_bit(name):
    """Two steps are a pass here, so minings and measurements fall due between; one mining is half done."""
    settings = {"steps_per_pass": 2.0, **COMBINATIONS[name]}
    whole = make_task(**settings)
    metrics = run(whole, STEPS)
    interrupted = make_task(**settings)
    run(interrupted, STEPS[:3])
    state = copy.deepcopy(interrupted.state_dict())
    resumed = make_task(seed=1, **settings)
    resumed.load_state_dict(state)
    assert run(resumed, STEPS[3:], first=3) == metrics[3:]
    for key, value in whole.state_dict().items():
        assert torch.equal(resumed.state_dict()[key], value), key


def test_the_states_tell_what_a_task_is_made_of():
    def parts(**options):
        keys = {key.split(".")[0] for key in make_task(**options).state_dict()}
        return keys - {"model"}

    assert parts() == {"video_bank", "audio_bank"}
    assert parts(targets="batch") == set()
    assert parts(targets="batch", loss="siglip") == {"siglip_log_scale", "siglip_bias"}
    assert parts(**QUEUE) == {"momentum_encoder", "queue"}
    assert parts(loss="nce", agreement=AGREEMENT) == {"video_bank", "audio_bank", "partition", "mining"}
    assert parts(weights=WEIGHTS) == {"video_bank", "audio_bank", "pair_weights"}


PHASES = {
    "avid-then-cma": ({"loss": "nce"}, {"loss": "nce", "agreement": AGREEMENT}),
    "xid-then-robust": ({}, ROBUST),
    "nce-then-softmax": ({"loss": "nce"}, ROBUST),
    "bank-then-batch": ({}, {"targets": "batch"}),
    "batch-then-bank": ({"targets": "batch"}, {"negatives": "all"}),
    "bank-then-queue": ({}, QUEUE),
    "queue-moves-on": (QUEUE, {**QUEUE, "queue": {"size": 7, "momentum": 0.5}}),
    "weights-change": (ROBUST, {"weights": {**WEIGHTS, "statistics": "batch", "shift": 0.3}}),
    "isogclr": ({}, COMBINATIONS["isogclr"]),
    "isogclr-moves-on": (COMBINATIONS["isogclr"], {"temperatures": {**TEMPERATURES, "rate": 0.0}}),
    "sharded": ({"bank_sharded": True}, {**ROBUST, "bank_sharded": True}),
}


@pytest.mark.parametrize("name", PHASES)
def test_a_later_phase_keeps_what_was_learned_and_resumes(name):
    first, second = PHASES[name]
    task = make_task(**first)
    run(task, STEPS[:2])
    before = copy.deepcopy(task.state_dict())
    task.enter(make_config(**second))
    after = task.state_dict()
    assert all(torch.equal(after[key], value) for key, value in before.items())
    run(task, STEPS[2:4])
    state = copy.deepcopy(task.state_dict())
    metrics = run(task, STEPS[4:], first=2)

    resumed = make_task(seed=3, **first)
    resumed.enter(make_config(**second))
    resumed.load_state_dict(state)
    assert run(resumed, STEPS[4:], first=2) == metrics
    assert {key: value.tolist() for key, value in resumed.state_dict().items()} == {
        key: value.tolist() for key, value in task.state_dict().items()
    }


def test_a_later_phase_uses_its_own_settings():
    task = make_task(bank_momentum=0.5)
    task.enter(make_config(bank_momentum=0.0))
    before = task.video_bank.memory.clone()
    run(task, STEPS[:1])
    moved = (task.video_bank.memory != before).any(1)
    assert moved.sum() == len(set(STEPS[0]))
    assert task.video_bank.momentum == 0.0


@pytest.mark.parametrize(
    ("first", "second", "key"),
    [
        ({}, {"loss": "siglip"}, "task.loss"),
        ({"loss": "siglip"}, {}, "task.loss"),
        ({}, {"bank_dtype": "float16"}, "task.bank_dtype"),
        ({}, {"bank_sharded": True}, "task.bank_sharded"),
        (QUEUE, {"targets": "queue", "queue": {"size": 8}}, "task.queue.size"),
    ],
)
def test_what_cannot_change_between_phases_is_refused(first, second, key):
    task = make_task(**first)
    with pytest.raises(ConfigError, match=f"^{key} goes from .*; (use|give)"):
        task.enter(make_config(**second))
    assert task.config == make_config(**first)


def test_what_an_earlier_phase_left_is_not_forgotten_by_a_phase_without_it():
    task = make_task(bank_dtype="float16")
    task.enter(make_config(targets="batch"))
    with pytest.raises(ConfigError, match=r"task.bank_dtype goes from float16 to float32"):
        task.enter(make_config())


@pytest.mark.parametrize("then", [{}, {"bank_sharded": True}])
@pytest.mark.parametrize("now", [{}, {"bank_sharded": True}])
def test_a_bank_is_saved_whole_however_it_is_kept(now, then):
    task = make_task(seed=1, **now)
    other = make_task(seed=2, **then)
    other.load_state_dict(task.state_dict())
    assert torch.equal(other.video_bank.memory, task.video_bank.memory)
    assert set(task.state_dict()) == set(other.state_dict())


def test_a_sharded_bank_of_other_rows_is_refused():
    task = make_task(bank_sharded=True)
    with pytest.raises(RuntimeError, match=r"video_bank.memory: \(9, 8\) in the state, \(14, 8\) here"):
        task.load_state_dict(make_task(rows=9).state_dict())
    state = task.state_dict()
    del state["audio_bank.memory"]
    with pytest.raises(RuntimeError, match=r"Missing key.*audio_bank.memory"):
        task.load_state_dict(state)
