"""The momentum encoder and its queue."""

import copy

import pytest
import torch
from task_tools import QUEUE, STEPS, TinyModel, make_batch, make_task, run

from avssl.tasks.slow import MomentumEncoder, TargetQueue
from avssl.training.distributed import ProcessGroup


def inputs(seed=0):
    batch = make_batch(STEPS[0], seed)
    return {name: batch[name].flatten(0, 1) for name in ("video", "audio")}


def test_it_follows_the_weights_and_takes_the_buffers():
    model, other = TinyModel(0), TinyModel(1)
    slow = MomentumEncoder(model)
    other.video[1].running_mean += 3
    before = {name: value.clone() for name, value in model.named_parameters()}
    slow.follow(other, 0.75)
    now = dict(slow.copy.named_buffers())
    for name, parameter in other.named_parameters():
        torch.testing.assert_close(now[name], 0.75 * before[name] + 0.25 * parameter)
    assert torch.equal(now["video.1.running_mean"], other.video[1].running_mean)


def test_it_starts_once_from_the_model_as_it_is_then():
    """A run may load weights into the model after the task is made."""
    model = TinyModel(0)
    slow = MomentumEncoder(model)
    model.load_state_dict(TinyModel(5).state_dict())
    slow.start(model)
    expected = torch.nn.functional.normalize(model(**inputs())["video"], dim=1)
    torch.testing.assert_close(slow(**inputs())["video"], expected)
    model.load_state_dict(TinyModel(6).state_dict())
    slow.start(model)
    torch.testing.assert_close(slow(**inputs())["video"], expected)


def test_it_has_nothing_to_learn_and_its_outputs_no_gradient():
    task = make_task(**QUEUE)
    names = {name.split(".")[0] for name, _ in task.named_parameters()}
    assert names == {"model"}
    assert not any(x.requires_grad for x in task.momentum_encoder(**inputs()).values())


def test_it_can_be_made_of_a_compiled_model():
    model = TinyModel(0)
    for part in model.children():
        part.compile(backend="eager")
    slow = MomentumEncoder(model)
    expected = torch.nn.functional.normalize(TinyModel(0)(**inputs())["audio"], dim=1)
    torch.testing.assert_close(slow(**inputs())["audio"], expected)


def test_it_changes_only_after_a_step():
    """A step that is skipped because of a gradient that is not finite never comes to `after_step`."""
    task = make_task(**QUEUE)
    task.before_step(0, ProcessGroup())
    before = copy.deepcopy(task.state_dict())
    task(make_batch(STEPS[0]), ranks=ProcessGroup(), seed=0)
    changed = {key for key, value in task.state_dict().items() if not torch.equal(value, before[key])}
    assert all("running" in key or "tracked" in key for key in changed)


@pytest.mark.parametrize("lengths", [[2, 3, 1, 4], [5, 5], [3, 12], [7, 1, 1]])
def test_the_queue_is_a_ring(lengths):
    queue, everything = TargetQueue(5, 2), []
    for number, length in enumerate(lengths):
        rows = torch.arange(length) + 100 * number
        values = torch.stack([rows, -rows], 1).float()
        queue.push(rows, values, values + 0.5)
        everything += rows.tolist()
    assert sorted(queue.rows.tolist()) == sorted(everything[-5:])
    assert torch.equal(queue.side("video")[:, 0], queue.rows.float())
    assert torch.equal(queue.side("audio")[:, 1], 0.5 - queue.rows.float())
    oldest = int(queue.next)
    assert queue.rows.roll(-oldest).tolist() == everything[-5:]


def test_a_queue_without_entries_changes_nothing():
    """At the first step the slow encoder is the model: targets are those of the batch, without their gradient."""
    queue, batch = make_task(**QUEUE), make_task(targets="batch")
    assert run(queue, STEPS[:1])[0] == pytest.approx(run(batch, STEPS[:1])[0], abs=1e-5)
    assert run(queue, STEPS[1:2], first=1)[0] != pytest.approx(run(batch, STEPS[1:2], first=1)[0], abs=1e-3)


def test_the_row_of_a_query_is_no_negative_where_it_comes_again_in_the_queue():
    task = make_task(**QUEUE)
    run(task, [[0, 1, 2, 0]])
    batch = make_batch([0, 1, 2, 0])
    state = copy.deepcopy(task.state_dict())
    first = task(batch, ranks=ProcessGroup(), seed=0)["metrics"]
    task.load_state_dict(state)
    task.queue.video[task.queue.rows == 0] *= -1  # only for queries of row 0 does that make no difference
    task.queue.audio[task.queue.rows == 0] *= -1
    other = task(batch, ranks=ProcessGroup(), seed=0)["metrics"]
    assert float(first["loss"]) != pytest.approx(float(other["loss"]), abs=1e-4)
    only = make_task(**QUEUE)
    run(only, [[0, 0]])
    output = only(make_batch([0, 0]), ranks=ProcessGroup(), seed=0)
    assert float(output["loss"].detach()) == pytest.approx(0, abs=1e-6)  # no candidate but the partner
