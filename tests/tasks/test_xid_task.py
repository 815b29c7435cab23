"""The xID task on tiny towers: start values, bank, partition, duplicates, and two processes against one."""

import math

import pytest
import torch
from torch import multiprocessing

from avssl.models.config import ModelConfig, TowerConfig
from avssl.models.two_tower import TwoTower
from avssl.objectives.nce import nce_xid
from avssl.objectives.xid import softmax_xid
from avssl.tasks.registry import TASKS, task_class, task_config_class
from avssl.tasks.xid import XIDTask
from avssl.tasks.xid_config import XIDConfig
from avssl.training.batch_norm import synchronise_batch_norm
from avssl.training.distributed import ProcessGroup

ROWS = 12


def make_task(seed=0, **options):
    torch.manual_seed(seed)
    options.setdefault("negatives", 16)
    model = TwoTower(ModelConfig(video=TowerConfig("tiny_video"), audio=TowerConfig("tiny_audio")))
    return XIDTask(XIDConfig(**options), model, rows=ROWS, seed=seed).train()


def make_batch(rows, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return {
        "row": torch.tensor(rows),
        "video": torch.randn(len(rows), 1, 3, 4, 32, 32, generator=generator),
        "audio": torch.randn(len(rows), 1, 1, 12000, generator=generator),
    }


def embeddings(task, batch):
    """Unit vectors of a batch without touching the running statistics."""
    with torch.no_grad():
        out = task.model(video=batch["video"].flatten(0, 1), audio=batch["audio"].flatten(0, 1))
    return (torch.nn.functional.normalize(out[name], dim=-1) for name in ("video", "audio"))


@pytest.mark.parametrize("loss", ["softmax", "nce"])
def test_batch_targets_equal_a_slow_loop(loss):
    """In-batch xID by the definition, one query at a time, with a repeated row left out of the negatives."""
    task, batch = make_task(targets="batch", loss=loss), make_batch([3, 1, 4, 3])
    output = task(batch, ranks=ProcessGroup(), seed=1)
    video, audio = embeddings(task, batch)
    total, terms = 0.0, []
    for queries, targets in ((video, audio), (audio, video)):
        for i, row in enumerate(batch["row"].tolist()):
            candidates = [i] + [j for j, other in enumerate(batch["row"].tolist()) if other != row]
            x = torch.stack([queries[i] @ targets[j] / 0.07 for j in candidates])[None]
            terms.append((x, len(candidates) - 1))
    if loss == "nce":
        v2a = terms[: len(terms) // 2]
        z = sum(float(x[0, 1:].exp().sum()) for x, _ in v2a) / sum(k for _, k in v2a)
        assert float(task.partition) == pytest.approx(z, rel=1e-5)
    for x, _ in terms:
        first = torch.zeros(1, dtype=torch.int64)
        value = softmax_xid(x, first) if loss == "softmax" else nce_xid(x, first, torch.tensor(z))
        total += float(value)
    assert float(output["loss"].detach()) == pytest.approx(total / len(terms), rel=1e-4)
    assert float(output["metrics"]["loss"]) == pytest.approx(float(output["loss"].detach()), rel=1e-6)


def test_bank_targets_start_near_the_published_value():
    """With banks of random unit vectors each direction starts at 7.72 for K = 1024 (methods A.13)."""
    torch.manual_seed(0)
    model = TwoTower(ModelConfig(video=TowerConfig("tiny_video"), audio=TowerConfig("tiny_audio")))
    task = XIDTask(XIDConfig(), model, rows=5000)
    metrics = task(make_batch(list(range(32))), ranks=ProcessGroup(), seed=3)["metrics"]
    assert float(metrics["loss"]) == pytest.approx(7.72, abs=0.6)  # 32 queries, far from independent


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


def test_the_partition_is_measured_once_and_travels_in_the_state_dict():
    task = make_task(loss="nce")
    assert float(task.partition) == 0
    task(make_batch([1, 2, 3]), ranks=ProcessGroup(), seed=1)
    first = float(task.partition)
    assert first > 0
    task(make_batch([4, 5, 6], seed=9), ranks=ProcessGroup(), seed=2)
    assert float(task.partition) == first
    other = make_task(seed=1, loss="nce")
    other.load_state_dict(task.state_dict())
    assert float(other.partition) == first
    assert torch.equal(other.video_bank.memory, task.video_bank.memory)


def test_a_batch_that_is_not_finite_does_not_set_the_partition():
    task, batch = make_task(loss="nce"), make_batch([1, 2, 3])
    batch["video"][0, 0, 0, 0, 0, 0] = math.nan
    output = task(batch, ranks=ProcessGroup(), seed=1)
    assert not torch.isfinite(output["metrics"]["loss"])
    assert float(task.partition) == 0


def test_negatives_come_from_usable_rows_only():
    """A bank row that no sample ever moves would stay random: an easy negative for ever."""
    torch.manual_seed(0)
    model = TwoTower(ModelConfig(video=TowerConfig("tiny_video"), audio=TowerConfig("tiny_audio")))
    usable = torch.tensor([2, 5, 6, 9])
    task = XIDTask(XIDConfig(negatives=64), model, rows=ROWS, usable=usable)
    for bank in (task.video_bank, task.audio_bank):
        unusable = torch.ones(ROWS, dtype=torch.bool)
        unusable[usable] = False
        bank.memory[unusable] = math.nan
    assert torch.isfinite(task(make_batch([9, 2]), ranks=ProcessGroup(), seed=1)["loss"])


def test_several_clips_of_a_sample_are_queries_of_their_own():
    task = make_task(targets="batch")
    one, two = make_batch([3, 1], seed=1), make_batch([3, 1], seed=2)
    both = {"row": one["row"]} | {k: torch.cat([one[k], two[k]], 1) for k in ("video", "audio")}
    output = task(both, ranks=ProcessGroup(), seed=1)
    assert output["memory"]["row"].tolist() == [3, 3, 1, 1]
    assert torch.isfinite(output["loss"])


def test_every_registered_task_resolves():
    for name in TASKS:
        assert task_config_class(name)().name == name
        assert issubclass(task_class(name), torch.nn.Module)


# One process against two: same global batch, parts of different sizes, rows that repeat across the border.

GLOBAL_ROWS = [[3, 1, 4, 1, 5], [9, 2, 3, 5, 3]]
PARTS = [2, 3]


def train_two_steps(ranks, options):
    """Towers in float64: in float32 a rounding error now and then turns a ReLU, which is no small difference."""
    task = make_task(**options)
    synchronise_batch_norm(task.model.double(), ranks)
    task.model.front_end.register_forward_hook(lambda *call: call[-1].double())  # it gives float32 whatever comes
    wrapped = torch.nn.parallel.DistributedDataParallel(task) if ranks.size > 1 else task
    optimizer = torch.optim.SGD(task.parameters(), lr=0.05)
    found = []
    for step, rows in enumerate(GLOBAL_ROWS):
        batch = {key: v.double() if v.is_floating_point() else v for key, v in make_batch(rows, seed=step).items()}
        if ranks.size > 1:
            first = sum(PARTS[: ranks.rank])
            batch = {key: value[first : first + PARTS[ranks.rank]] for key, value in batch.items()}
        output = wrapped(batch, ranks=ranks, seed=step)
        optimizer.zero_grad()
        output["loss"].backward()
        gradients = {name: p.grad.clone() for name, p in task.named_parameters()}
        optimizer.step()
        task.after_step([output["memory"]], ranks)
        found.append({"metrics": output["metrics"], "gradients": gradients})
    return found, {key: value.clone() for key, value in task.state_dict().items()}


OPTIONS = [{"targets": "batch", "loss": "softmax"}, {"targets": "bank", "loss": "nce"}]


def work(rank, folder):
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2)
    results = [train_two_steps(ProcessGroup(), options) for options in OPTIONS]
    torch.save(results, f"{folder}/rank{rank}.pt")
    torch.distributed.destroy_process_group()


@pytest.fixture(scope="module")
def results_of_both_ranks(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ranks")
    multiprocessing.spawn(work, (str(folder),), nprocs=2)
    return [torch.load(folder / f"rank{rank}.pt") for rank in (0, 1)]


@pytest.mark.parametrize("number", range(len(OPTIONS)), ids=["-".join(options.values()) for options in OPTIONS])
def test_two_processes_equal_one(number, results_of_both_ranks):
    """Loss, metrics, gradients, running statistics, banks and partition."""
    ours, state = train_two_steps(ProcessGroup(), OPTIONS[number])
    for results in results_of_both_ranks:
        steps, other_state = results[number]
        for mine, theirs in zip(ours, steps, strict=True):
            torch.testing.assert_close(theirs["metrics"], mine["metrics"], rtol=1e-5, atol=1e-5)
            for name, gradient in mine["gradients"].items():
                error = float((theirs["gradients"][name] - gradient).norm() / gradient.norm())
                assert error < 1e-5, f"{name}: {error}"
        torch.testing.assert_close(other_state, state, rtol=1e-5, atol=1e-6)
