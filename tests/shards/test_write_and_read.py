"""The format: what the writer writes, ShardSet, tarfile, tar and webdataset read."""

import hashlib
import json
import multiprocessing
import pickle
import shutil
import subprocess
import tarfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from shard_builders import made_up_clip, write_folder

from avssl.errors import ShardError, UsageError
from avssl.shards.format import sample_id
from avssl.shards.options import BuildOptions
from avssl.shards.read import ShardSet
from avssl.shards.sources import Entry, Listing
from avssl.shards.write import Cursor, ShardWriter, is_finished


def members(shards):
    return [(row, name, shards.read(row, name)) for row in range(len(shards)) for name in shards.members(row)]


def test_ids_are_fixed_for_ever():
    # Golden values: an id that changes would orphan every memory bank and prediction keyed by it.
    assert sample_id("dog/a.mp4", 0, 10_000) == hashlib.blake2b(b"dog/a.mp4\x000\x0010000", digest_size=8).hexdigest()
    assert sample_id("dog/a.mp4", 0, 10_000) == "ed13aa303e788c25"
    assert len({sample_id("a", 1, 12), sample_id("a", 11, 2), sample_id("a1", 1, 2), sample_id("a", 1, 2)}) == 4


def test_columns_records_and_members(folder):
    shards = ShardSet.open(folder)
    assert len(shards) == 20 and shards.labels == ["even"]
    for row in range(20):
        clip = made_up_clip(
            row, "even" if row % 2 == 0 else None, audio=row % 3 != 0 or row % 5 == 0, video=row % 5 != 0
        )
        record = shards.record(row)
        assert record["row"] == row and record["shard"] == shards.shard[row] == row // 5
        assert {key: record[key] for key in clip.sample} == clip.sample
        assert f"{shards.ids[row]:016x}" == record["id"]
        assert shards.duration_s[row] == 10.0
        assert shards.has_video[row] == ("mp4" in clip.members) and shards.has_audio[row] == ("flac" in clip.members)
        assert shards.label[row] == (0 if row % 2 == 0 else -1)
        assert sorted(shards.members(row)) == sorted([*clip.members, "json"])
        for name, data in clip.members.items():
            assert shards.read(row, name) == data
        assert json.loads(shards.read(row, "json")) == clip.sample
        for kind, name in (("video", "mp4"), ("audio", "flac")):
            if name in clip.members:
                assert shards.member_name(row, kind) == name
            else:
                with pytest.raises(ShardError, match=f"has no {kind}"):
                    shards.member_name(row, kind)
    with pytest.raises(ShardError, match="has no member 'ogg', only"):
        shards.read(0, "ogg")
    with pytest.raises(IndexError):
        shards.record(20)
    with pytest.raises(IndexError):
        shards.read(-1, "json")


def test_other_readers_see_the_same_samples(folder, tmp_path):
    shards = ShardSet.open(folder)
    expected = {(f"{shards.ids[row]:016x}.{name}", data) for row, name, data in members(shards)}

    found = set()
    for path in sorted(folder.glob("*.tar")):
        with tarfile.open(path) as tar:
            for info in tar:
                assert (info.mtime, info.uid, info.gid, info.mode, info.type) == (0, 0, 0, 0o644, tarfile.REGTYPE)
                found.add((info.name, tar.extractfile(info).read()))
    assert found == expected

    for path in folder.glob("*.tar"):
        subprocess.run(["tar", "xf", path, "-C", tmp_path], check=True)
    assert {(path.name, path.read_bytes()) for path in tmp_path.glob("*.*")} == expected

    import webdataset

    urls = [str(path) for path in sorted(folder.glob("*.tar"))]
    seen = list(webdataset.WebDataset(urls, shardshuffle=False))
    assert [sample["__key__"] for sample in seen] == [f"{value:016x}" for value in shards.ids]
    assert {
        (f"{sample['__key__']}.{name}", data) for sample in seen for name, data in sample.items() if name[:2] != "__"
    } == expected


def test_index_and_files(folder):
    index = json.loads((folder / "index.json").read_bytes())
    assert sorted(path.name for path in folder.iterdir()) == [
        "columns.safetensors", "index.json", "manifest.jsonl", "rejected.jsonl",
        *(f"shard-{n:06d}.tar" for n in range(4)),
    ]  # fmt: skip
    assert index["format"] == "avssl-shards" and index["version"] == 1 and index["rows"] == 20
    assert index["manifest_sha256"] == hashlib.sha256((folder / "manifest.jsonl").read_bytes()).hexdigest()
    for shard in index["shards"]:
        data = (folder / shard["name"]).read_bytes()
        assert (shard["bytes"], shard["sha256"]) == (len(data), hashlib.sha256(data).hexdigest())
    assert json.loads((folder / "rejected.jsonl").read_bytes()) == {
        "source": "bad.mp4", "start_s": None, "reason": "corrupt", "detail": "made up"
    }  # fmt: skip


def test_shards_close_by_size(tmp_path):
    folder = write_folder(tmp_path / "s", [made_up_clip(n, size=4000) for n in range(10)], shard_mb=0.02)
    sizes = [path.stat().st_size for path in sorted(folder.glob("*.tar"))]
    assert len(sizes) > 2 and all(20_000 <= size < 45_000 for size in sizes[:-1])


def read_in_child(shards, connection):
    connection.send(members(shards))


def test_pickle_fork_and_threads(folder, monkeypatch):
    monkeypatch.setattr("avssl.shards.folder._OPEN_FILES", 2)  # fewer than shards: files are closed while others read
    shards = ShardSet.open(folder)
    expected = members(shards)
    assert members(pickle.loads(pickle.dumps(shards))) == expected
    with ThreadPoolExecutor(8) as threads:
        assert all(result == expected for result in threads.map(lambda _: members(shards), range(16)))
    ours, theirs = multiprocessing.Pipe()
    child = multiprocessing.get_context("fork").Process(target=read_in_child, args=(shards, theirs))
    child.start()
    assert ours.recv() == expected == members(shards)
    child.join()


def open_files():
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def test_few_files_stay_open(folder, monkeypatch):
    monkeypatch.setattr("avssl.shards.folder._OPEN_FILES", 2)
    before = open_files()
    shards = ShardSet.open(folder)
    members(shards)
    assert open_files() <= before + 2 + 3  # manifest, columns and the mapping of these
    del shards
    assert open_files() == before


def test_several_folders_are_one_set(folder, tmp_path):
    other = write_folder(tmp_path / "other", [made_up_clip(n, "animal" if n else "even") for n in range(100, 103)])
    empty = write_folder(tmp_path / "empty", [])
    both = ShardSet.open([folder, empty, other])
    first, second = ShardSet.open(folder), ShardSet.open(other)
    assert len(both) == 23 and both.labels == ["animal", "even"]
    assert [both.labels[n] for n in both.label if n >= 0] == ["even"] * 10 + ["animal"] * 3
    assert members(both)[: len(members(first))] == members(first)
    for row in range(3):
        assert both.record(20 + row) == second.record(row) | {"row": 20 + row}
        assert both.read(20 + row, "mp4") == second.read(row, "mp4")
    assert both.path(both.shard[20]) == other / "shard-000000.tar"
    hashes = {s.manifest_sha256 for s in (both, first, second, ShardSet.open([other, folder]))}
    assert len(hashes) == 4
    with pytest.raises(ShardError, match="given twice"):
        ShardSet.open([folder, folder])


def test_empty_folder_opens(tmp_path):
    assert len(ShardSet.open(write_folder(tmp_path / "empty", [], rejected=["a.mp4"]))) == 0


def damage(path, text, other):
    data = path.read_bytes()
    assert text in data
    path.write_bytes(data.replace(text, other, 1))


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda f: damage(f / "manifest.jsonl", b'"n":3', b'"n":4'), "does not belong to index.json"),
        (lambda f: (f / "manifest.jsonl").write_bytes(b""), "does not belong"),
        (lambda f: (f / "manifest.jsonl").write_bytes(b"{}\n" * 20), "does not belong"),
        (lambda f: (f / "manifest.jsonl").write_bytes((f / "manifest.jsonl").read_bytes() * 2), "does not belong"),
        (lambda f: (f / "manifest.jsonl").unlink(), "cannot be read"),
        (lambda f: (f / "index.json").unlink(), "not a shard folder"),
        (lambda f: (f / "index.json").write_text("{"), "cannot be read"),
        (lambda f: (f / "index.json").write_text("[]"), '"format" is not'),
        (lambda f: damage(f / "index.json", b'"version": 1', b'"version": 2'), "format version 2"),
        (lambda f: damage(f / "index.json", b'"labels"', b'"lobels"'), "'labels' is missing"),
        (shutil.rmtree, "no such folder"),
    ],
)
def test_damaged_folders_are_refused(folder, change, message):
    change(folder)
    with pytest.raises(ShardError, match=message):
        ShardSet.open(folder)


def test_damaged_shards_are_errors_of_reading(folder):
    shards = ShardSet.open(folder)
    (folder / "shard-000003.tar").unlink()
    with pytest.raises(ShardError, match=r"shard-000003\.tar: cannot be read"):
        shards.read(19, "json")
    with (folder / "shard-000002.tar").open("r+b") as file:
        file.truncate(2000)
    with pytest.raises(ShardError, match=r"shard-000002\.tar: ends early"):
        shards.read(14, "json")
    with pytest.raises(ShardError, match="shard-000002"):
        ShardSet.open(folder, verify=True)


def test_clip_that_is_there_already_is_rejected(tmp_path):
    folder = write_folder(tmp_path / "s", [made_up_clip(1), made_up_clip(1), made_up_clip(2)])
    assert len(ShardSet.open(folder)) == 2
    assert json.loads((folder / "rejected.jsonl").read_bytes())["reason"] == "duplicate"


CLIPS = [made_up_clip(n) for n in range(10)]
LISTING = Listing([Entry(clip.sample["source"], "") for clip in CLIPS])
OPTIONS = BuildOptions(shard_clips=3)


def test_writer_goes_on_after_the_last_finished_shard(tmp_path):
    whole = write_folder(tmp_path / "whole", CLIPS, shard_clips=3)
    for stop in range(11):
        out = tmp_path / f"stopped {stop}"
        with ShardWriter(out, LISTING, OPTIONS, None) as writer:
            for number in range(stop):
                writer.add(CLIPS[number], Cursor(number + 1))
        with pytest.raises(ShardError, match="not finished"):
            ShardSet.open(out)
        assert not is_finished(out, LISTING, OPTIONS, None)
        with ShardWriter(out, LISTING, OPTIONS, None) as writer:
            assert writer.cursor == Cursor(stop // 3 * 3)
            for number in range(writer.cursor.entry, 10):
                writer.add(CLIPS[number], Cursor(number + 1))
            writer.finish()
        assert is_finished(out, LISTING, OPTIONS, None)
        for path in whole.iterdir():
            assert (out / path.name).read_bytes() == path.read_bytes()


def test_shard_that_vanished_before_the_build_went_on(tmp_path):
    with ShardWriter(tmp_path, LISTING, OPTIONS, None) as writer:
        for number in range(4):
            writer.add(CLIPS[number], Cursor(number + 1))
    (tmp_path / "shard-000000.tar").unlink()
    with pytest.raises(ShardError, match="finished shard was removed"):
        ShardWriter(tmp_path, LISTING, OPTIONS, None)


def test_two_builds_at_once_are_refused(tmp_path):
    with ShardWriter(tmp_path, LISTING, OPTIONS, None), pytest.raises(UsageError, match="another process"):
        ShardWriter(tmp_path, LISTING, OPTIONS, None)


def test_other_content_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="already holds other files"):
        is_finished(tmp_path, LISTING, OPTIONS, None)
    with pytest.raises(UsageError, match="is a file"):
        is_finished(tmp_path / "file", LISTING, OPTIONS, None)


@pytest.mark.parametrize("finished", [False, True])
def test_other_options_or_sources_are_refused_with_what_differs(tmp_path, finished):
    with ShardWriter(tmp_path, LISTING, OPTIONS, None) as writer:
        for number, clip in enumerate(CLIPS):
            writer.add(clip, Cursor(number + 1))
        if finished:
            writer.finish()
    with pytest.raises(UsageError, match=r"other options: fps was 16.0 and is 8.0"):
        is_finished(tmp_path, LISTING, BuildOptions(shard_clips=3, fps=8.0), None)
    more = Listing([*LISTING.entries, Entry("new.mp4", "")])
    with pytest.raises(UsageError, match=r"1 added \(e.g. new.mp4\)"):
        is_finished(tmp_path, more, OPTIONS, None)
    relabelled = Listing([Entry(entry.source, "", label="x") for entry in LISTING.entries])
    with pytest.raises(UsageError, match="labels or metadata"):
        is_finished(tmp_path, relabelled, OPTIONS, None)


def test_columns_are_compact(folder):
    shards = ShardSet.open(folder)
    assert all(isinstance(value, np.ndarray) for value in (shards.ids, shards.label, shards.has_audio))
    assert not any(isinstance(value, list) and len(value) == len(shards) for value in vars(shards).values())
