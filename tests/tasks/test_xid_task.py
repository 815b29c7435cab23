"""The xID task: start values, bank, partition, rows without use, invariants between its forms."""

import math

import pytest
import torch
from task_tools import COMBINATIONS, QUEUE, ROWS, STEPS, make_batch, make_task, run

from avssl.models.config import ModelConfig, TowerConfig
from avssl.models.two_tower import TwoTower
from avssl.tasks.registry import TASKS, task_class, task_config_class
from avssl.tasks.xid import XIDTask
from avssl.tasks.xid_config import XIDConfig
from avssl.training.distributed import ProcessGroup


def real_task(rows=12, **options):
    torch.manual_seed(0)
    model = TwoTower(ModelConfig(video=TowerConfig("tiny_video"), audio=TowerConfig("tiny_audio")))
    return XIDTask(XIDConfig(**options), model, rows=rows).train()


def real_batch(rows, clips=1):
    generator = torch.Generator().manual_seed(0)
    return {
        "row": torch.tensor(rows),
        "video": torch.randn(len(rows), clips, 3, 4, 32, 32, generator=generator),
        "audio": torch.randn(len(rows), clips, 1, 12000, generator=generator),
    }


def test_bank_targets_start_near_the_published_value():
    """With banks of random unit vectors each direction starts at 7.72 for K = 1024 (methods A.13)."""
    task = real_task(rows=5000)
    metrics = task(real_batch(list(range(32))), ranks=ProcessGroup(), seed=3)["metrics"]
    assert float(metrics["loss"]) == pytest.approx(7.72, abs=0.6)  # 32 queries, far from independent


def test_several_clips_of_a_sample_are_queries_of_their_own():
    output = real_task(targets="batch")(real_batch([3, 1], clips=2), ranks=ProcessGroup(), seed=1)
    assert output["memory"]["row"].tolist() == [3, 3, 1, 1]
    assert torch.isfinite(output["loss"])


def test_the_bank_is_read_before_it_is_updated_once_a_step():
    task, batch = make_task(), make_batch([5, 2])
    before = task.audio_bank.memory.clone()
    output = task(batch, ranks=ProcessGroup(), seed=1)
    assert torch.equal(task.audio_bank.memory, before)
    task.after_step([output["memory"]], ProcessGroup())
    changed = (task.audio_bank.memory != before).any(1).nonzero().flatten().tolist()
    assert changed == [2, 5]
    expected = torch.nn.functional.normalize(0.5 * before[5] + 0.5 * output["memory"]["audio"][0], dim=0)
    torch.testing.assert_close(task.audio_bank.memory[5], expected)


def test_duplicates_in_a_step_the_last_micro_batch_wins():
    task, batches = make_task(), [make_batch([5, 2], seed=1), make_batch([5, 5], seed=2)]
    before = task.video_bank.memory.clone()
    memories = [task(batch, ranks=ProcessGroup(), seed=1)["memory"] for batch in batches]
    task.after_step(memories, ProcessGroup())
    expected = torch.nn.functional.normalize(0.5 * before[5] + 0.5 * memories[1]["video"][1], dim=0)
    torch.testing.assert_close(task.video_bank.memory[5], expected)


def test_the_partition_is_measured_once_on_the_negatives_of_video_to_audio():
    task, batch = make_task(loss="nce", negatives="all"), make_batch([1, 2, 3])
    assert float(task.partition) == 0
    with torch.no_grad():
        video = torch.nn.functional.normalize(task.model(batch["video"][:, 0], batch["audio"][:, 0])["video"], dim=1)
    terms = [
        math.exp(float(video[i] @ task.audio_bank.memory[j]) / 0.2) for i in range(3) for j in range(ROWS) if j != i + 1
    ]
    task(batch, ranks=ProcessGroup(), seed=1)
    first = float(task.partition)
    assert first == pytest.approx(sum(terms) / len(terms), rel=1e-5)
    task(make_batch([4, 5, 6], seed=9), ranks=ProcessGroup(), seed=2)
    assert float(task.partition) == first


@pytest.mark.parametrize("name", COMBINATIONS)
def test_a_batch_that_is_not_finite_leaves_nothing_behind(name):
    """The loop sees the loss and skips the step; it restores the running statistics of the model by itself."""
    task, batch = make_task(**COMBINATIONS[name]), make_batch([1, 2, 3])
    task.before_step(0, ProcessGroup())
    before = {key: value.clone() for key, value in task.state_dict().items()}
    batch["video"][0, 0, 0] = math.nan
    output = task(batch, ranks=ProcessGroup(), seed=1)
    assert not torch.isfinite(output["metrics"]["loss"])
    for key, value in task.state_dict().items():
        assert torch.equal(value, before[key]) or "running" in key or "tracked" in key


@pytest.mark.parametrize("name", [name for name in COMBINATIONS if "batch" not in name and "queue" not in name])
def test_rows_without_use_have_no_part_in_anything(name):
    """A bank row that no sample ever moves would stay random: an easy negative for ever."""
    usable = [1, 2, 3, 4, 5, 6, 8, 9]
    task, other = (make_task(usable=usable, **COMBINATIONS[name]) for _ in range(2))
    useless = torch.ones(ROWS, dtype=torch.bool)
    useless[usable] = False
    for bank in (other.video_bank, other.audio_bank):
        bank.memory[useless] *= -1
    assert run(task, STEPS[:1]) == run(other, STEPS[:1])


@pytest.mark.parametrize("options", [{}, {"negatives": "all"}, {"targets": "batch"}, QUEUE])
def test_soft_targets_without_a_share_are_plain_xid_bit_for_bit(options):
    plain, soft = make_task(**options), make_task(**options, soft={"share": 0.0})
    for mine, theirs in zip(run(plain, STEPS), run(soft, STEPS), strict=True):
        assert mine == theirs
    assert all(torch.equal(mine, theirs) for mine, theirs in zip(plain.parameters(), soft.parameters(), strict=True))


@pytest.mark.parametrize("name", COMBINATIONS)
def test_every_parameter_learns_and_the_loss_falls(name):
    """The same batch again and again. Where a loss's own weights or soft targets move with the model (iSogCLR, robust
    without slow banks), its value is no measure of progress."""
    task = make_task(**COMBINATIONS[name])
    losses = [metrics["loss"] for metrics in run(task, [[0, 1, 2, 3, 4]] * 24)]
    assert all(parameter.grad.norm() > 0 for parameter in task.parameters())
    if "isogclr" not in name and name not in ("batch-robust", "queue-robust"):
        assert sum(losses[-8:]) < sum(losses[:8])


def test_every_registered_task_resolves():
    for name in TASKS:
        assert task_config_class(name)().name == name
        assert issubclass(task_class(name), torch.nn.Module)
