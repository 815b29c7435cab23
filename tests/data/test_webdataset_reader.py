"""The streaming reader: the same samples as by index, exact resume without decoding what is gone, http with ranges."""

import contextlib
import dataclasses
import functools
import http.server
import itertools
import os
import re
import shutil
import threading
from pathlib import Path

import fsspec
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from avssl.data.config import AudioSpec, DataConfig, VideoSpec
from avssl.data.loader import Loader
from avssl.data.webdataset_reader import Plan
from avssl.errors import ConfigError, ShardError

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


class RangeHandler(http.server.SimpleHTTPRequestHandler):
    """Static files with byte ranges; counts requests and breaks the connection where told to."""

    protocol_version = "HTTP/1.1"
    requests: list[str]
    breaks: list[str]

    def do_GET(self):
        name = self.path.rsplit("/", 1)[-1]
        self.requests.append(name)
        path = Path(self.translate_path(self.path))
        if not path.is_file():
            self.send_error(404)
            return
        data = path.read_bytes()
        wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        first, last = 0, len(data) - 1
        if wanted:
            first, last = int(wanted[1]), min(int(wanted[2] or last), last)
        self.send_response(206 if wanted else 200)
        if wanted:
            self.send_header("Content-Range", f"bytes {first}-{last}/{len(data)}")
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Length", str(last + 1 - first))
        self.end_headers()
        body = data[first : last + 1]
        if name in self.breaks:
            self.breaks.remove(name)
            body = body[: len(body) // 2]
            self.close_connection = True
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self.wfile.write(body)

    def do_HEAD(self):
        path = Path(self.translate_path(self.path))
        self.send_response(200 if path.is_file() else 404)
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Length", str(path.stat().st_size if path.is_file() else 0))
        self.end_headers()

    def log_message(self, *_):
        pass


@pytest.fixture
def server(shards):
    """(address of the shards, names requested so far, names whose next answer breaks off)"""
    handler = type("Handler", (RangeHandler,), {"requests": [], "breaks": []})
    with http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), functools.partial(handler, directory=str(shards.parent))
    ) as running:
        thread = threading.Thread(target=running.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{running.server_port}/{shards.name}", handler.requests, handler.breaks
        running.shutdown()
        thread.join()


def test_http_gives_the_same_samples_with_workers(config, server):
    url, _, _ = server
    remote = Loader(dataclasses.replace(config, shards=[url], workers=1))
    assert remote.state_dict() == Loader(config).state_dict()
    assert_same_samples(take(remote, 6), take(Loader(config), 6))
    remote.close()


def test_a_resumed_run_does_not_fetch_shards_that_are_done(config, server):
    url, requests, _ = server
    config = dataclasses.replace(config, shards=[url], shuffle=False, workers=0)
    loader = Loader(config, position=6, endless=False)
    assert rows_of(loader) == [7, 8, 9]
    assert {name for name in requests if name.endswith(".tar")} == {"shard-000002.tar", "shard-000003.tar"}


def test_a_broken_connection_is_taken_up_again(config, server, monkeypatch):
    url, _, breaks = server
    monkeypatch.setattr("avssl.data.webdataset_reader._PAUSE_S", 0.01)
    breaks += ["shard-000001.tar", "shard-000000.tar"]
    remote = Loader(dataclasses.replace(config, shards=[url]))
    assert sorted(rows_of(take(remote, 3))) == ROWS
    assert not breaks
    remote.close()


def test_what_cannot_be_fetched_is_named(config, server, monkeypatch):
    url, _, breaks = server
    monkeypatch.setattr("avssl.data.webdataset_reader._PAUSE_S", 0.01)
    with pytest.raises(ShardError, match=r"nothing/index\.json: cannot be fetched"):
        Loader(dataclasses.replace(config, shards=[f"{url}/nothing"]))
    with pytest.raises(ConfigError, match="nosuch://"):
        Loader(dataclasses.replace(config, shards=["nosuch://host/x"]))
    breaks += ["shard-000001.tar"] * 9
    with pytest.raises(ShardError, match=rf"{url}/shard-000001\.tar: cannot be read"):
        take(Loader(dataclasses.replace(config, shards=[url])), 6)


def test_tars_that_do_not_belong_to_the_manifest_stop_the_run(config, shards, tmp_path, monkeypatch):
    monkeypatch.setattr("avssl.data.webdataset_reader._PAUSE_S", 0.01)
    folder = tmp_path / "mixed"
    shutil.copytree(shards, folder)
    shutil.copy(folder / "shard-000000.tar", folder / "shard-000001.tar")
    with pytest.raises(ShardError, match=r"shard-000001\.tar: sample [0-9a-f]{16} is missing"):
        take(Loader(dataclasses.replace(config, shards=[str(folder)])), 3)
    os.truncate(folder / "shard-000000.tar", 5000)
    with pytest.raises(ShardError, match=r"shard-000000\.tar: cannot be read"):
        take(Loader(dataclasses.replace(config, shards=[str(folder)], shuffle=False)), 3)


def test_any_protocol_of_fsspec_will_do(config, shards):
    memory = fsspec.filesystem("memory")
    for path in shards.iterdir():
        memory.pipe_file(f"/bucket/set/{path.name}", path.read_bytes())
    remote = Loader(dataclasses.replace(config, shards=["memory://bucket/set"]))
    assert_same_samples(take(remote, 3), take(Loader(config), 3))


def test_more_ranks_than_rows(config):
    config = dataclasses.replace(config, batch_size=10)
    with pytest.raises(ConfigError, match="9 usable rows among 10 ranks"):
        next(Loader(config, rank=0, world_size=10))


def test_several_folders_local_and_remote(config, server, copied):
    url, _, _ = server
    loader = Loader(dataclasses.replace(config, shards=[str(copied), url], workers=0, batch_size=1, max_skipped=0.0))
    rows = {0, 1, 2, 4, 5} | {6 + row for row in ROWS}
    assert set(rows_of(take(loader, len(rows)))) == rows
