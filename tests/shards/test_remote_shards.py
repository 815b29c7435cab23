"""Remote shard folders: the bytes of the local ones whatever the network does, and a cache that keeps its limit."""

import hashlib
import json
import multiprocessing
import os
import pickle
import resource
import shutil
import signal
import time

import pytest
from fault_server import FaultServer
from shard_builders import made_up_clip, write_folder

from avssl.errors import ConfigError, ShardError
from avssl.shards.cache import ShardCache
from avssl.shards.fetch import fetch
from avssl.shards.options import CacheConfig
from avssl.shards.read import ShardSet

FORK = multiprocessing.get_context("fork")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """12 clips in 4 shards of about 270 kB."""
    clips = [made_up_clip(n, "even" if n % 2 == 0 else None, size=65_000) for n in range(12)]
    return write_folder(tmp_path_factory.mktemp("served") / "set", clips, shard_clips=3)


@pytest.fixture
def server(folder):
    with FaultServer(folder) as running:
        yield running


@pytest.fixture
def options(tmp_path):
    return CacheConfig(dir=str(tmp_path / "cache"), size_gb=0.1, attempts=3, pause_s=0.01, timeout_s=5)


def content(shards):
    return [(shards.record(row), {m: shards.read(row, m) for m in shards.members(row)}) for row in range(len(shards))]


def size_of(options):
    return sum(path.stat().st_size for path in ShardCache(options).folder.iterdir())


def test_an_address_gives_what_the_folder_gives_and_asks_once(folder, server, options):
    local, remote = ShardSet.open(folder), ShardSet.open(server.url + "/", cache=options)
    assert content(remote) == content(local)
    assert remote.manifest_sha256 == local.manifest_sha256 and (remote.label == local.label).all()
    assert content(pickle.loads(pickle.dumps(remote))) == content(local)
    again = ShardSet.open(server.url, cache=options)
    assert content(again) == content(local)
    names = [name for name, _ in server.requests]
    assert names.count("index.json") == 2 and all(names.count(name) == 1 for name in {*names} - {"index.json"})
    assert remote.remote_bytes + (folder / "index.json").stat().st_size == sum(
        path.stat().st_size for path in folder.iterdir() if path.name != "rejected.jsonl"
    )
    assert remote.shard_path(1) == f"{server.url}/shard-000001.tar"


def test_a_folder_without_columns_and_other_protocols(folder, server, options):
    import fsspec

    memory = fsspec.filesystem("memory")
    for path in folder.iterdir():
        memory.pipe_file(f"/bucket/{path.name}", path.read_bytes())
    index = json.loads((folder / "index.json").read_bytes())
    del index["columns"]
    memory.pipe_file("/bucket/index.json", json.dumps(index).encode())
    assert content(ShardSet.open("memory://bucket", cache=options)) == content(ShardSet.open(folder))
    memory.rm("/bucket/shard-000002.tar")
    shutil.rmtree(options.dir)
    with pytest.raises(ShardError, match=r"memory://bucket/shard-000002\.tar: cannot be fetched \(it is not there\)"):
        content(ShardSet.open("memory://bucket", cache=options))


def test_a_broken_connection_goes_on_after_the_last_byte(folder, server, options):
    name = "shard-000001.tar"
    server.faults[name] = [("drop", 70_000), ("drop", 0), ("drop", 1000), 503, ("drop", 90_000)]
    options.attempts = 4
    assert content(ShardSet.open(server.url, cache=options)) == content(ShardSet.open(folder))
    assert server.starts(name) == [0, 70_000, 70_000, 71_000, 71_000, 161_000]


def test_without_progress_it_gives_up_with_a_sentence(server, options):
    server.faults["shard-000000.tar"] = [500] * 9
    shards = ShardSet.open(server.url, cache=options)
    message = rf"{server.url}/shard-000000\.tar: cannot be fetched \(HTTP 500 .*; tried 3 times in a row\); see that"
    with pytest.raises(ShardError, match=message):
        shards.read(0, "mp4")
    assert server.starts("shard-000000.tar") == [0, 0, 0]


def test_an_answer_that_is_final_is_not_asked_for_again(server, options):
    with pytest.raises(ShardError, match=r"nothing/index\.json: cannot be fetched \(HTTP 404 Not Found\)"):
        ShardSet.open(f"{server.url}/nothing", cache=options)
    assert len(server.requests) == 1
    with pytest.raises(ConfigError, match="nosuch://"):
        ShardSet.open("nosuch://host/x", cache=options)


def test_a_silent_server_is_left_after_a_while(folder, server, options):
    options.timeout_s = 0.2
    server.faults["shard-000002.tar"] = [("stall", 1.0)]
    assert content(ShardSet.open(server.url, cache=options)) == content(ShardSet.open(folder))
    assert server.starts("shard-000002.tar") == [0, 0]


def test_a_server_without_ranges(folder, options):
    with FaultServer(folder, ranges=False) as server:
        server.faults["shard-000000.tar"] = [("drop", 100_000)]
        assert content(ShardSet.open(server.url, cache=options)) == content(ShardSet.open(folder))
        assert server.starts("shard-000000.tar") == [0, 100_000]


def test_wrong_bytes_are_never_used(folder, server, options):
    """From the only address: refused. After a break, where either part may be the wrong one: fetched again."""
    server.faults["shard-000000.tar"] = [("flip", 5)]
    with pytest.raises(ShardError, match=r"shard-000000\.tar: cannot be fetched \(its bytes are not the ones"):
        ShardSet.open(server.url, cache=options).read(0, "mp4")
    with FaultServer(folder) as mirror:
        server.faults["shard-000000.tar"] = [("flip", 5), ("flip", 5)]
        server.faults["shard-000001.tar"] = [("drop", 100_000)]
        mirror.faults["shard-000001.tar"] = [("flip", 200_000)]
        both = ShardSet.open(f"{server.url} {mirror.url}", cache=options)
        assert content(both) == content(ShardSet.open(folder))
        assert mirror.starts("shard-000001.tar") == [100_000]
        assert server.starts("shard-000001.tar") == [0, 0]


def test_a_mirror_that_dies_in_mid_shard_loses_nothing(folder, options):
    with FaultServer(folder, die_after=400_000) as first, FaultServer(folder) as second:
        shards = ShardSet.open([f"{first.url}  {second.url}/"], cache=options)
        assert content(shards) == content(ShardSet.open(folder))
        assert first.dead
        asked = {name: (first.starts(name), second.starts(name)) for name, _ in first.requests + second.requests}
        assert any(theirs[:1] and theirs[0] > 0 for _, theirs in asked.values())  # it went on, not from the beginning


def test_the_least_recently_used_files_make_room(folder, server, options):
    sizes = [path.stat().st_size for path in sorted(folder.glob("*.tar"))]
    rest = sum((folder / name).stat().st_size for name in ("manifest.jsonl", "columns.safetensors"))
    options.size_gb = (rest + 2.5 * max(sizes)) / 1e9
    shards = ShardSet.open(server.url, cache=options)
    for number, fetched in [(0, 1), (1, 2), (0, 2), (2, 3), (0, 3), (1, 4)]:
        shards.open_shard(number)
        time.sleep(0.02)
        tars = [name for name, _ in server.requests if name.endswith(".tar")]
        assert (number, len(tars)) == (number, fetched)
        assert size_of(options) <= options.size_gb * 1e9
    held = [shards.open_shard(1), shards.open_shard(2)]
    with pytest.raises(ShardError, match=r"no room for .* GB more, .* are in use; raise data\.cache\.size_gb"):
        shards.open_shard(3)
    del held[0]
    shards.open_shard(3)
    assert held[0].read(0, 10, "x") == (folder / "shard-000002.tar").read_bytes()[:10]


def read_all(url, options, results):
    results.put(content(ShardSet.open(url, cache=options)))


def test_processes_share_a_cache_and_fetch_each_file_once(folder, server, options):
    server.faults = {f"shard-{n:06d}.tar": [("drop", 100_000)] for n in range(4)}
    results = FORK.Queue()
    processes = [FORK.Process(target=read_all, args=(server.url, options, results)) for _ in range(4)]
    for process in processes:
        process.start()
    expected = content(ShardSet.open(folder))
    assert all(results.get(timeout=60) == expected for _ in processes)
    for process in processes:
        process.join()
    assert all(server.starts(f"shard-{n:06d}.tar") == [0, 100_000] for n in range(4))


def test_what_a_killed_process_had_fetched_is_not_asked_for_again(folder, server, options):
    name = "shard-000003.tar"
    server.faults[name] = [("drop", 150_000), ("stall", 60)]
    shards = ShardSet.open(server.url, cache=options)
    child = FORK.Process(target=shards.open_shard, args=(3,))
    child.start()
    while len(server.starts(name)) < 2:
        time.sleep(0.01)
    os.kill(child.pid, signal.SIGKILL)
    child.join()
    assert content(shards) == content(ShardSet.open(folder))
    assert server.starts(name) == [0, 150_000, 150_000]


@pytest.mark.parametrize("size_is_known", [True, False])
def test_a_part_that_is_whole_or_too_long_already(folder, server, options, tmp_path, size_is_known):
    """A process was killed between the last byte and the new name, or a disk left something else behind."""
    name = "manifest.jsonl"
    data = (folder / name).read_bytes()
    sha256, size = hashlib.sha256(data).hexdigest(), len(data) if size_is_known else None
    for part, asked in ((data, []), (data + b"more", [len(data) + 4, 0]), (b"x" * len(data), [len(data), 0])):
        (tmp_path / "part").write_bytes(part)
        server.requests.clear()
        fetch([f"{server.url}/{name}"], tmp_path / "part", options, sha256=sha256, size=size)
        assert (tmp_path / "part").read_bytes() == data
        if not size_is_known:
            assert server.starts(name) == asked


def with_small_files(url, options, results):
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
    try:
        ShardSet.open(url, cache=options).read(0, "mp4")
    except ShardError as error:
        results.put(str(error))


def test_a_disk_that_refuses_is_named_and_not_tried_again(server, options):
    results = FORK.Queue()
    child = FORK.Process(target=with_small_files, args=(server.url, options, results))
    child.start()
    assert "cannot be written (File too large); free space" in results.get(timeout=60)
    child.join()
    assert server.starts("shard-000000.tar") == [0]


def test_an_index_cannot_name_files_outside(folder, tmp_path, options):
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    index = json.loads((copy / "index.json").read_bytes())
    index["shards"][0]["sha256"] = "../../outside"
    (copy / "index.json").write_text(json.dumps(index))
    with FaultServer(copy) as server, pytest.raises(ShardError, match="where a sha256 belongs"):
        ShardSet.open(server.url, cache=options).read(0, "mp4")
