"""The streaming reader: the same samples as by index, exact resume without decoding what is gone, http with ranges."""

import dataclasses
import itertools
import os
import shutil

import fsspec
import numpy as np
import pytest
import torch
from fault_server import FaultServer
from hypothesis import given, settings
from hypothesis import strategies as st

from avssl.data.config import AudioSpec, DataConfig, VideoSpec
from avssl.data.loader import Loader
from avssl.data.webdataset_reader import Plan
from avssl.errors import ConfigError, ShardError
from avssl.shards.options import CacheConfig

ROWS = [0, 1, 2, 3, 4, 5, 7, 8, 9]


@pytest.fixture
def config(shards):
    video, audio = VideoSpec(frames=2, fps=8), AudioSpec(duration_s=0.1)
    options = {"batch_size": 3, "workers": 0, "seed": 5, "stream_buffer": 4, "reader": "webdataset"}
    return DataConfig([str(shards)], video=video, audio=audio, **options)


def take(loader, steps):
    return [next(loader) for _ in range(steps)]


def rows_of(batches):
    return [row for batch in batches for row in batch["row"].tolist()]


def by_sample(batches):
    """{(epoch, row): everything of the sample but its place in the batch}"""
    found = {}
    for batch in batches:
        for b, (epoch, row) in enumerate(zip(batch["epoch"].tolist(), batch["row"].tolist(), strict=True)):
            height, width = batch["video_size_px"][b].tolist()
            sample = {name: value[b].nan_to_num(-1) for name, value in batch.items() if name != "video"}
            found[epoch, row] = sample | {"video": batch["video"][b, :, :, :height, :width]}
    return found


def assert_same_samples(batches, others):
    samples, other_samples = by_sample(batches), by_sample(others)
    assert samples.keys() == other_samples.keys()
    for key, sample in samples.items():
        for name, value in sample.items():
            assert torch.equal(value, other_samples[key][name]), (key, name)


def test_same_samples_as_by_index(config):
    streamed = take(Loader(config), 6)
    indexed = take(Loader(dataclasses.replace(config, reader="index")), 6)
    assert_same_samples(streamed, indexed)
    assert rows_of(streamed) != rows_of(indexed)  # in another order
    assert sorted(rows_of(streamed)) == sorted(ROWS * 2)
    assert rows_of(streamed[:3]) != rows_of(streamed[3:])  # and each epoch in its own


def test_the_order_does_not_depend_on_workers_and_resume_is_exact(config):
    whole = take(Loader(config), 8)
    loader = Loader(dataclasses.replace(config, workers=2, prefetch=2))
    assert rows_of(take(loader, 4)) == rows_of(whole[:4])
    state = loader.state_dict()
    loader.close()
    for workers in (0, 1):
        resumed = Loader(dataclasses.replace(config, workers=workers))
        resumed.load_state_dict(state)
        assert_same_samples(take(resumed, 4), whole[4:])
        resumed.close()
    for step in range(8):
        assert rows_of([next(Loader(config, position=3 * step))]) == rows_of(whole[step : step + 1])


@pytest.mark.parametrize(("shuffle", "draws"), [(True, 1), (False, 1), (True, 3)])
def test_ranks_are_disjoint_and_complete_in_every_epoch(config, shuffle, draws):
    config = dataclasses.replace(config, batch_size=6, shuffle=shuffle, draws_per_row=draws)
    ranks = [take(Loader(config, rank=rank, world_size=2), 5 * draws) for rank in range(2)]
    first_epoch = [
        row
        for batches in ranks
        for batch in batches
        for epoch, row in zip(batch["epoch"].tolist(), batch["row"].tolist(), strict=True)
        if epoch == 0
    ]
    assert sorted(first_epoch) == sorted(ROWS * draws)
    if not shuffle:
        assert rows_of(take(Loader(dataclasses.replace(config, batch_size=3)), 3)) == ROWS
    ends = [list(Loader(config, rank=rank, world_size=2, endless=False)) for rank in range(2)]
    assert sorted(rows_of(itertools.chain(*ends))) == sorted(ROWS * draws)
    assert abs(len(ends[0]) - len(ends[1])) <= 1


def test_another_world_size_or_buffer_is_refused_with_numbers(config):
    state = Loader(config).state_dict()
    with pytest.raises(ShardError, match="world_size was 1, now it is 3"):
        Loader(config, world_size=3).load_state_dict(state)
    with pytest.raises(ShardError, match="stream_buffer was 4, now it is 8"):
        Loader(dataclasses.replace(config, stream_buffer=8)).load_state_dict(state)


@given(
    counts=st.lists(st.integers(1, 7), min_size=1, max_size=6),
    epoch=st.integers(0, 3),
    world_size=st.integers(1, 4),
    buffer=st.integers(1, 9),
    draws=st.integers(1, 2),
)
@settings(max_examples=60)
def test_plans_are_complete_disjoint_and_read_shards_in_one_go(counts, epoch, world_size, buffer, draws):
    shard_of = np.repeat(np.arange(len(counts)) * 2, counts)
    config = DataConfig(["x"], stream_buffer=buffer, draws_per_row=draws)
    plans = [Plan(shard_of, epoch, config, rank, world_size) for rank in range(world_size)]
    found = [pair for plan in plans for pair in zip(plan.rows.tolist(), plan.draws.tolist(), strict=True)]
    assert sorted(found) == [(row, draw) for row in range(sum(counts)) for draw in range(draws)]
    for plan in plans:
        assert sorted(plan.leave) == list(range(len(plan.rows)))
        assert [plan.shards[visit] for visit in plan.visits] == shard_of[plan.rows].tolist()
        assert (np.diff(plan.visits) >= 0).all()


@pytest.fixture
def server(shards):
    with FaultServer(shards) as running:
        yield running


@pytest.fixture
def remote(config, server, tmp_path):
    """The config with the shards behind http, and its own cache."""
    cache = CacheConfig(dir=str(tmp_path / "cache"), attempts=3, pause_s=0.01)
    return dataclasses.replace(config, shards=[server.url], cache=cache)


def test_http_gives_the_same_samples_with_workers(config, remote):
    loader = Loader(dataclasses.replace(remote, workers=1))
    assert loader.state_dict() == Loader(config).state_dict()
    assert_same_samples(take(loader, 6), take(Loader(config), 6))
    loader.close()


def test_http_by_index_gives_the_very_same_batches(config, remote):
    local = take(Loader(dataclasses.replace(config, reader="index")), 6)
    loader = Loader(dataclasses.replace(remote, reader="index", workers=2))
    fetched = take(loader, 6)
    loader.close()
    assert rows_of(fetched) == rows_of(local)
    assert_same_samples(fetched, local)
    small = dataclasses.replace(remote.cache, size_gb=1e-6)
    with pytest.raises(ConfigError, match=r"0\.000 GB and data\.cache\.size_gb is 1e-06; raise it, or set"):
        Loader(dataclasses.replace(remote, reader="index", cache=small))


def test_a_resumed_run_does_not_fetch_shards_that_are_done(remote, server):
    loader = Loader(dataclasses.replace(remote, shuffle=False), position=6, endless=False)
    assert rows_of(loader) == [7, 8, 9]
    asked = {name for name, _ in server.requests if name.endswith(".tar")}
    assert asked == {"shard-000002.tar", "shard-000003.tar"}


def test_a_cache_of_few_shards_is_enough_to_stream(config, remote, shards):
    sizes = sorted(path.stat().st_size for path in shards.glob("*.tar"))
    rest = sum((shards / name).stat().st_size for name in ("manifest.jsonl", "columns.safetensors"))
    cache = dataclasses.replace(remote.cache, size_gb=(rest + 3 * sizes[-1]) / 1e9)
    assert sum(sizes) > 2 * sizes[-1]
    assert_same_samples(take(Loader(dataclasses.replace(remote, cache=cache)), 6), take(Loader(config), 6))


def test_a_mirror_that_dies_in_mid_shard_loses_and_doubles_no_sample(config, remote, server, shards):
    sizes = [path.stat().st_size for path in sorted(shards.glob("*.tar"))]
    server.die_after = 3000 + sum(sizes) // 2
    with FaultServer(shards) as mirror:
        both = dataclasses.replace(remote, shards=[f"{server.url} {mirror.url}"])
        batches = take(Loader(both), 3)
        assert server.dead and any(first > 0 for _, first in mirror.requests)
    assert rows_of(batches) == rows_of(take(Loader(config), 3))
    assert sorted(rows_of(batches)) == ROWS


def test_what_cannot_be_fetched_stops_the_run_by_name(remote, server):
    server.faults["shard-000001.tar"] = [500] * 9
    with pytest.raises(ShardError, match=rf"{server.url}/shard-000001\.tar: cannot be fetched"):
        take(Loader(remote), 6)


def test_tars_that_do_not_belong_to_the_manifest_stop_the_run(config, shards, tmp_path):
    folder = tmp_path / "mixed"
    shutil.copytree(shards, folder)
    shutil.copy(folder / "shard-000000.tar", folder / "shard-000001.tar")
    with pytest.raises(ShardError, match=r"shard-000001\.tar: sample [0-9a-f]{16} is missing"):
        take(Loader(dataclasses.replace(config, shards=[str(folder)])), 3)
    os.truncate(folder / "shard-000000.tar", 5000)
    with pytest.raises(ShardError, match=r"shard-000000\.tar: "):
        take(Loader(dataclasses.replace(config, shards=[str(folder)], shuffle=False)), 3)


def test_any_protocol_of_fsspec_will_do(config, shards, tmp_path):
    memory = fsspec.filesystem("memory")
    for path in shards.iterdir():
        memory.pipe_file(f"/bucket/set/{path.name}", path.read_bytes())
    cache = CacheConfig(dir=str(tmp_path))
    loader = Loader(dataclasses.replace(config, shards=["memory://bucket/set"], cache=cache))
    assert_same_samples(take(loader, 3), take(Loader(config), 3))


def test_more_ranks_than_rows(config):
    config = dataclasses.replace(config, batch_size=10)
    with pytest.raises(ConfigError, match="9 usable rows among 10 ranks"):
        next(Loader(config, rank=0, world_size=10))


def test_several_folders_local_and_remote(remote, server, copied):
    both = [str(copied), server.url]
    loader = Loader(dataclasses.replace(remote, shards=both, batch_size=1, max_skipped=0.0))
    rows = {0, 1, 2, 4, 5} | {6 + row for row in ROWS}
    assert set(rows_of(take(loader, len(rows)))) == rows
