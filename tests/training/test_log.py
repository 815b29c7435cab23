"""metrics.jsonl never tells a step twice; the meter resumes in the middle of a line's window."""

import json

import pytest

from avssl.errors import UsageError
from avssl.training.log import Log, Meter


def open_log(folder, step, **options):
    options = {"rows": True, "tensorboard": False, "wandb": None} | options
    return Log(folder, step=step, config={}, say=lambda line: None, **options)


def steps(path):
    return [json.loads(line)["step"] for line in path.read_text().splitlines()]


@pytest.mark.parametrize("rest", ["", '{"step":9,"lo', '{"step":9}\n'])
def test_opening_at_a_step_cuts_off_what_came_after(tmp_path, rest):
    log = open_log(tmp_path, 0)
    for step in (2, 4, 6, 8):
        log.write({"step": step, "loss": 1.0})
        log.write_rows(step, [1, 2], 1.0)
    log.close()
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write(rest)
    log = open_log(tmp_path, 5)
    log.write({"step": 6, "loss": None})
    log.close()
    assert steps(tmp_path / "metrics.jsonl") == [2, 4, 6]
    assert steps(tmp_path / "rows.jsonl") == [2, 4]


def test_meter_carries_half_a_window():
    whole, first, second = Meter(), Meter(), Meter()
    values = [0.1, 0.7, 0.3]
    for value in values:
        whole.add({"loss": value}, clips=4, step_s=1, wait_s=0)
    first.add({"loss": values[0]}, clips=4, step_s=1, wait_s=0)
    second.load_state_dict(json.loads(json.dumps(first.state_dict())))
    for value in values[1:]:
        second.add({"loss": value}, clips=4, step_s=1, wait_s=0)
    assert second.means() == whole.means()
    assert (second.clips, second.taken) == (8, 2)  # speed is that of this process


def test_skipped_steps_do_not_count_for_the_mean():
    meter = Meter()
    meter.add(None, clips=4, step_s=1, wait_s=0)
    assert meter.means() == {"loss": None}
    meter.add({"loss": 2.0}, clips=4, step_s=1, wait_s=0)
    assert meter.means() == {"loss": 2.0}


def test_tensorboard_gets_the_numbers(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    log = open_log(tmp_path, 0, tensorboard=True)
    for step in (1, 2, 3):
        log.write({"step": step, "loss": float(step)})
    log.close()
    log = open_log(tmp_path, 2, tensorboard=True)  # step 3 is taken again
    log.write({"step": 3, "loss": 30.0})
    log.close()
    events = EventAccumulator(str(tmp_path))
    events.Reload()
    assert [(event.step, event.value) for event in events.Scalars("loss")] == [(1, 1.0), (2, 2.0), (3, 30.0)]


def test_missing_wandb_is_said_in_one_sentence(tmp_path):
    pytest.importorskip("torch")
    try:
        import wandb  # noqa: F401
    except ImportError:
        with pytest.raises(UsageError, match=r"pip install avssl\[wandb\]"):
            open_log(tmp_path, 0, wandb="project")
    else:
        pytest.skip("wandb is installed here")
