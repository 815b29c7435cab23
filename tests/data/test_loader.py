"""The loader on real shards: the stream is the plan's, wherever it is cut, whoever decodes, however many ranks."""

import dataclasses
import itertools
import os
import shutil
import signal

import numpy as np
import pytest
import torch

from avssl.data import order
from avssl.data.config import AudioSpec, AugmentConfig, DataConfig, VideoSpec
from avssl.data.loader import Loader
from avssl.errors import AvsslError, BudgetError, ConfigError, ShardError
from avssl.shards import ShardSet

ROWS = [0, 1, 2, 3, 4, 5, 7, 8, 9]  # row 6 has no sound


@pytest.fixture
def config(shards):
    return DataConfig(
        [str(shards)],
        video=VideoSpec(frames=2, fps=8),
        audio=AudioSpec(duration_s=0.1),
        batch_size=4,
        workers=0,
        seed=5,
    )


def take(loader, steps):
    return [next(loader) for _ in range(steps)]


def rows_of(batches):
    return [row for batch in batches for row in batch["row"].tolist()]


def planned(start, stop, **options):
    entries = order.entries(range(start, stop), rows=len(ROWS), seed=5, **options)
    return [ROWS[entry.row] for entry in entries]


def assert_same(batches, others):
    assert len(batches) == len(others)
    for batch, other in zip(batches, others, strict=True):
        assert batch.keys() == other.keys()
        for name, tensor in batch.items():
            assert torch.equal(tensor.nan_to_num(-1), other[name].nan_to_num(-1)), name


def test_rows_come_as_planned_and_every_epoch_is_complete(config):
    batches = take(Loader(config), 9)
    assert rows_of(batches) == planned(0, 36)
    epochs = [epoch for batch in batches for epoch in batch["epoch"].tolist()]
    for epoch in range(4):
        assert sorted(row for row, e in zip(rows_of(batches), epochs, strict=True) if e == epoch) == ROWS


def test_draws_per_row_repeat_rows_inside_an_epoch_with_other_moments(config):
    config = dataclasses.replace(config, draws_per_row=4)
    batches = take(Loader(config), 9)
    assert sorted(rows_of(batches)) == sorted(ROWS * 4) and rows_of(batches) == planned(0, 36, draws=4)
    assert {epoch for batch in batches for epoch in batch["epoch"].tolist()} == {0}
    moments = {
        (row, *start_s.tolist())
        for batch in batches
        for row, start_s in zip(batch["row"].tolist(), batch["time_s"][:, 0], strict=True)
    }
    assert len(moments) > 32  # the short row has few moments


def test_rows_drawn_with_replacement_resume_anywhere_and_are_shared_by_ranks(config):
    config = dataclasses.replace(config, replacement=True)
    loader = Loader(dataclasses.replace(config, workers=1))
    batches = take(loader, 5)
    loader.close()
    assert rows_of(batches) == planned(0, 20, replacement=True)
    assert sorted(rows_of(batches)[:9]) != ROWS
    state = Loader(config, position=8).state_dict()
    resumed = Loader(config)
    resumed.load_state_dict(state)
    assert_same(take(resumed, 3), batches[2:])
    ranks = [Loader(config, rank=rank, world_size=2) for rank in range(2)]
    for batch in batches:
        assert rows_of([batch]) == rows_of(next(rank) for rank in ranks)


def test_a_row_that_comes_twice_is_augmented_anew(config):
    batches = take(Loader(dataclasses.replace(config, replacement=True)), 9)
    crops = {}
    for batch in batches:
        for epoch, row, moment in zip(batch["epoch"], batch["row"], batch["time_s"].flatten(1), strict=True):
            crops.setdefault((int(epoch), int(row)), []).append(tuple(moment.tolist()))
    twice = [moments for (_, row), moments in crops.items() if len(moments) > 1 and row in (0, 1, 2, 3, 4)]
    assert twice and all(len(set(moments)) == len(moments) for moments in twice)


@pytest.mark.parametrize("world_size", [2, 4])
def test_ranks_together_see_what_one_sees(config, world_size):
    single = take(Loader(config), 5)
    ranks = [take(Loader(config, rank=rank, world_size=world_size), 5) for rank in range(world_size)]
    for step, batch in enumerate(single):
        parts = [ranks[rank][step] for rank in range(world_size)]
        for name in ("row", "epoch", "time_s", "crop_px", "jitter", "gain", "audio"):
            assert torch.equal(torch.cat([part[name] for part in parts]), batch[name]), name


def test_resume_is_exact_at_any_step_with_workers_and_prefetch(config):
    whole = take(Loader(config), 8)
    config = dataclasses.replace(config, workers=2, prefetch=3)
    loader = Loader(config)
    assert_same(take(loader, 3), whole[:3])
    state = loader.state_dict()
    assert state["position"] == 12 and state["rows"] == 9
    assert_same(take(loader, 2), whole[3:5])  # it goes on unharmed
    loader.load_state_dict(state)
    assert_same(take(loader, 5), whole[3:8])
    loader.close()
    resumed = Loader(dataclasses.replace(config, workers=1, prefetch=1))
    resumed.load_state_dict(state)
    assert_same(take(resumed, 5), whole[3:8])
    resumed.close()
    for step in range(8):
        assert_same([next(Loader(dataclasses.replace(config, workers=0), position=step * 4))], whole[step : step + 1])


def test_another_world_size_continues_exactly(config):
    single = rows_of(take(Loader(config), 6))
    first = Loader(config)
    take(first, 3)
    ranks = [Loader(config, rank=rank, world_size=2) for rank in range(2)]
    for loader in ranks:
        loader.load_state_dict(first.state_dict())
    steps = zip(*(take(loader, 3) for loader in ranks), strict=True)
    assert [row for pair in steps for row in rows_of(pair)] == single[12:]


def test_workers_leave_the_models_random_numbers_alone(config):
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    loader = Loader(dataclasses.replace(config, workers=1))
    next(loader)
    assert torch.equal(torch.rand(3), expected)
    loader.close()


def test_one_epoch_ends_with_a_smaller_batch(config):
    config = dataclasses.replace(config, shuffle=False, sampling="even", augment=None)
    batches = list(Loader(config, endless=False))
    assert [len(batch["row"]) for batch in batches] == [4, 4, 1] and rows_of(batches) == ROWS
    ranks = [list(Loader(config, rank=rank, world_size=2, endless=False)) for rank in range(2)]
    assert sorted(rows_of(itertools.chain(*ranks))) == ROWS
    workers = Loader(dataclasses.replace(config, workers=2), endless=False)
    assert_same(list(workers), batches)
    assert list(workers) == []


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"seed": 6}, "seed"),
        ({"draws_per_row": 2}, "draws_per_row"),
        ({"audio": None}, "rows"),
        ({"shuffle": False}, "shuffle"),
        ({"replacement": True}, "replacement"),
    ],
)
def test_a_state_of_another_order_is_refused(config, change, name):
    state = Loader(config).state_dict()
    with pytest.raises(ShardError, match=f"its {name} was"):
        Loader(dataclasses.replace(config, **change)).load_state_dict(state)


def test_summary_and_counts(config):
    loader = Loader(config)
    assert loader.rows_total == 10 and loader.steps_per_pass == 9 / 4
    assert loader.summary == "9 of 10 rows with video and audio, 1 without audio left out; 2.25 steps of 4 a pass"
    kept = Loader(dataclasses.replace(config, audio=AudioSpec(optional=True)))
    assert "10 of 10 rows" in kept.summary and "1 without audio kept" in kept.summary


def test_wrong_uses_say_what_to_do(config, shards):
    with pytest.raises(ConfigError, match=r"batch_size 4 .* 3 equal parts"):
        Loader(config, world_size=3)
    with pytest.raises(ConfigError, match="names no folder"):
        Loader(dataclasses.replace(config, shards=[]))
    with pytest.raises(ConfigError, match="both null"):
        DataConfig(video=None, audio=None)
    with pytest.raises(ConfigError, match=r"set data\.draws_per_row to 1"):
        dataclasses.replace(config, replacement=True, draws_per_row=2)
    with pytest.raises(ConfigError, match=r"needs random access.*set data\.reader to index"):
        dataclasses.replace(config, replacement=True, reader="webdataset")
    with pytest.raises(ConfigError, match="no epoch has all rows"):
        Loader(dataclasses.replace(config, replacement=True), endless=False)
    with pytest.raises(ConfigError, match=r"augment\.crop_area"):
        AugmentConfig(crop_area=(0.5, 0.1))


@pytest.fixture
def damaged(shards, tmp_path):
    """A copy of the shards and a function that overwrites the video of rows with noise."""
    folder = tmp_path / "damaged"
    shutil.copytree(shards, folder)
    shard_set = ShardSet.open(folder)

    def damage(*rows):
        for row in rows:
            offset, size = shard_set.record(row)["members"]["mp4"]
            with shard_set.path(shard_set.shard[row]).open("r+b") as file:
                file.seek(offset)
                file.write(np.random.default_rng(row).bytes(size))

    return folder, damage


@pytest.mark.parametrize("workers", [0, 1])
def test_a_bad_sample_is_left_out_counted_and_named(config, damaged, workers):
    folder, damage = damaged
    damage(3)
    loader = Loader(dataclasses.replace(config, shards=[str(folder)], workers=workers))
    batches = take(loader, 9)
    assert rows_of(batches) == [row for row in planned(0, 36) if row != 3]
    assert loader.skipped.total() == 4 and loader.position == 36
    sample = loader.skipped_samples[0]
    assert (
        sample.row == 3 and sample.shard == "shard-000001.tar" and sample.key == ShardSet.open(folder).record(3)["id"]
    )
    assert set(loader.skipped) == {sample.reason} and sample.reason in str(sample)
    loader.close()


def test_too_many_bad_samples_stop_the_run(config, damaged):
    folder, damage = damaged
    damage(0, 1, 2, 3)
    loader = Loader(dataclasses.replace(config, shards=[str(folder)]))
    with pytest.raises(BudgetError, match=r"11 of \d+ samples could not be used .*max_skipped 0.01.*row \d") as caught:
        take(loader, 30)
    assert "shard-00000" in str(caught.value)
    generous = Loader(dataclasses.replace(config, shards=[str(folder)], max_skipped=0.6))
    assert set(rows_of(take(generous, 20))) == {4, 5, 7, 8, 9}


def test_a_batch_without_any_good_sample(config, damaged):
    folder, damage = damaged
    damage(0, 1, 2, 3)
    config = dataclasses.replace(config, shards=[str(folder)], batch_size=1, max_skipped=1.0)
    loader = Loader(config)
    good = [row for row in planned(0, 18) if row > 3]
    assert rows_of(take(loader, len(good))) == good  # goes on with the next
    config = dataclasses.replace(config, batch_size=2)
    with pytest.raises(BudgetError, match="no sample of a batch"):  # a rank may not: the others count steps
        take(Loader(config, rank=1, world_size=2), 18)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_missing_or_cut_shard_stops_the_run(config, damaged, workers):
    folder, _ = damaged
    config = dataclasses.replace(config, shards=[str(folder)], workers=workers)
    os.truncate(folder / "shard-000002.tar", 1000)
    with pytest.raises(ShardError, match=r"shard-000002\.tar: ends early"):
        take(Loader(config), 3)
    (folder / "shard-000002.tar").unlink()
    with pytest.raises(ShardError, match=r"shard-000002\.tar"):
        take(Loader(config), 3)


def worker_ids(loader):
    return [worker.pid for worker in loader._outcomes._workers]


def test_a_killed_worker_is_a_clear_error(config, monkeypatch):
    monkeypatch.setattr("torch.utils.data._utils.MP_STATUS_CHECK_INTERVAL", 0.5)
    loader = Loader(dataclasses.replace(config, workers=1))
    next(loader)
    os.kill(worker_ids(loader)[0], signal.SIGKILL)
    with pytest.raises(AvsslError, match=r"worker process ended unexpectedly.*data\.workers"):
        take(loader, 10)


def test_workers_outlive_signals_meant_for_the_main_process(config):
    loader = Loader(dataclasses.replace(config, workers=1))
    first = next(loader)
    for number in (signal.SIGTERM, signal.SIGINT):
        os.kill(worker_ids(loader)[0], number)
    assert rows_of([first, *take(loader, 5)]) == planned(0, 24)
    loader.close()
