"""One process against two, for every way that options combine: metrics, gradients, and the whole state."""

import copy

import pytest
import torch
from task_tools import COMBINATIONS, QUEUE, STEPS, in_two_processes, make_task, run
from torch.distributed.fsdp import fully_shard

from avssl.errors import ConfigError
from avssl.training.distributed import ProcessGroup, full_state, load_full_state

USABLE = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 12]
CHECKPOINTS = [("robust-sharded", "ddp"), ("robust-sharded", "fsdp"), ("siglip", "fsdp"), ("queue-robust", "ddp")]
DTYPES = (torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.bool)


def work(ranks):
    """What both processes do, in one start of them: it takes longer than all the rest."""
    return {
        "trained": train(ranks, COMBINATIONS),
        "exchanged": exchange(ranks),
        "said": sharded_weights(ranks),
        "checkpoints": {(name, how): checkpoint(ranks, name, how) for name, how in CHECKPOINTS},
    }


@pytest.fixture(scope="module")
def of_both_ranks():
    return in_two_processes(work)


def train(ranks, names):
    found = {}
    for name in names:
        task = make_task(ranks=ranks, usable=USABLE, **COMBINATIONS[name])
        wrapped = torch.nn.parallel.DistributedDataParallel(task) if ranks.size > 1 else None
        metrics = run(task, STEPS[:3], ranks=ranks, wrapped=wrapped)
        gradients = {key: parameter.grad.clone() for key, parameter in task.named_parameters()}
        found[name] = (metrics, gradients, {key: value.clone() for key, value in task.state_dict().items()})
    return found


def exchange(ranks):
    """Parts of different lengths, of every type that is sent, and of none."""
    counts = [[2, 3], [0, 5]][ranks.rank]
    part = torch.arange(10).reshape(5, 2) + 100 * ranks.rank
    arrived = [ranks.exchange(part.to(dtype), counts) for dtype in DTYPES]
    arrived.append(ranks.exchange(torch.zeros(0, 4), [0, 0]))
    arrived.append(ranks.exchange(torch.arange(3) + 10 * ranks.rank, [1, 2]))
    return arrived


def sharded_weights(ranks):
    """What is said where the weights of the model are split over the ranks, which a momentum encoder cannot follow."""
    task = make_task(ranks=ranks, **QUEUE)
    fully_shard(task)
    try:
        task.before_step(0, ranks)
    except ConfigError as error:
        return str(error)


def checkpoint(ranks, name, how):
    """The state that a checkpoint would hold after a step, and whether another task takes it over wholly."""

    def start(seed):
        task = make_task(seed=seed, ranks=ranks, **COMBINATIONS[name])
        wrapped = fully_shard(task) if how == "fsdp" else torch.nn.parallel.DistributedDataParallel(task)
        return task, wrapped, torch.optim.SGD(task.parameters(), lr=0.05, momentum=0.9)

    task, wrapped, optimizer = start(seed=0)
    run(task, STEPS[:1], ranks=ranks, wrapped=wrapped, optimizer=optimizer)
    state = copy.deepcopy(full_state(task, optimizer))  # on a CPU it is the tensors of the task
    whole = list(copy.deepcopy(state))
    torch.distributed.broadcast_object_list(whole)  # a checkpoint is a file that every rank reads
    other, wrapped, optimizer = start(seed=1)
    load_full_state(other, optimizer, *whole)
    return state[0], run(task, STEPS[1:2], ranks=ranks, first=1), run(other, STEPS[1:2], ranks=ranks, first=1)


@pytest.mark.parametrize(("name", "how"), CHECKPOINTS)
def test_checkpoints_hold_whole_banks_and_are_taken_over(name, how, of_both_ranks):
    one = make_task(**COMBINATIONS[name])
    run(one, STEPS[:1])
    state, ours, theirs = of_both_ranks[0]["checkpoints"][name, how]
    assert ours == theirs
    assert set(state) == set(one.state_dict())
    for key, value in one.state_dict().items():
        torch.testing.assert_close(state[key], value, rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize("name", COMBINATIONS)
def test_two_processes_equal_one(name, of_both_ranks):
    metrics, gradients, state = train(ProcessGroup(), [name])[name]
    for rank, found in enumerate(of_both_ranks):
        their_metrics, their_gradients, their_state = found["trained"][name]
        for mine, theirs in zip(metrics, their_metrics, strict=True):
            assert theirs == pytest.approx(mine, rel=1e-4, abs=2e-5)
        torch.testing.assert_close(their_gradients, gradients, rtol=1e-3, atol=2e-5)
        rounding = {"rtol": 0.01, "atol": 0.01} if "float16" in name else {"rtol": 1e-4, "atol": 2e-5}
        assert set(their_state) == set(state)
        for key, value in state.items():
            if rank and "sharded" in name and key.endswith("bank.memory"):
                assert len(their_state[key]) == 0  # whole on rank 0, which writes checkpoints
            else:
                torch.testing.assert_close(their_state[key], value, **rounding)


def test_exchange_sends_parts_of_any_length_and_type(of_both_ranks):
    first, second = (found["exchanged"] for found in of_both_ranks)
    whole = torch.arange(10).reshape(5, 2)
    for number, dtype in enumerate(DTYPES):
        assert torch.equal(first[number], whole[:2].to(dtype))
        assert torch.equal(second[number], torch.cat([whole[2:].to(dtype), (whole + 100).to(dtype)]))
    assert first[5].shape == second[5].shape == (0, 4)
    assert (first[6].tolist(), second[6].tolist()) == ([0, 10], [1, 2, 11, 12])


def test_one_process_exchanges_with_itself():
    part = torch.arange(6).reshape(3, 2)
    assert torch.equal(ProcessGroup().exchange(part, [3]), part)


def test_a_momentum_encoder_of_sharded_weights_is_refused(of_both_ranks):
    for found in of_both_ranks:
        assert "task.targets is 'queue'" in found["said"]
        assert "run.strategy" in found["said"]
