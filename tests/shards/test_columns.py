"""The columns beside a manifest: the same as its lines, mapped, checked, and made again where they are missing."""

import json
import pickle
import subprocess
import sys

import numpy as np
import pytest
import safetensors
from shard_builders import made_up_clip, write_folder

from avssl.errors import ShardError
from avssl.shards import format as layout
from avssl.shards.columns import Columns, manifest_of
from avssl.shards.folder import add_columns
from avssl.shards.read import ShardSet
from avssl.shards.verify import verify


def lines_of(folder):
    return [json.loads(line) for line in (folder / "manifest.jsonl").read_bytes().splitlines()]


def index_of(folder):
    return json.loads((folder / "index.json").read_bytes())


def test_the_file_is_what_the_manifest_says_and_any_reader_of_safetensors_reads_it(folder):
    with safetensors.safe_open(folder / "columns.safetensors", "np") as file:
        found = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is no mapping
        assert file.metadata() == {"manifest_sha256": index_of(folder)["manifest_sha256"]}
    end = 0
    for row, line in enumerate(lines_of(folder)):
        assert found["ids"][row] == int(line["id"], 16)
        assert found["shard"][row] == line["shard"]
        assert found["duration_s"][row] == line["end_s"] - line["start_s"]
        assert (found["has_video"][row], found["has_audio"][row]) == (bool(line["video"]), bool(line["audio"]))
        assert found["label"][row] == (-1 if line["label"] is None else 0)
        for name in ("mp4", "flac", "json"):
            assert found[f"members.{name}"][row].tolist() == line["members"].get(name, [-1, -1])
        assert found["lines"][row] == end
        end = found["lines"][row + 1]
    assert end == (folder / "manifest.jsonl").stat().st_size


def test_without_the_file_the_manifest_is_read(folder):
    mapped = ShardSet.open(folder)
    (folder / "columns.safetensors").unlink()
    read = ShardSet.open(folder)
    for name in ("ids", "shard", "duration_s", "has_video", "has_audio", "label"):
        assert np.array_equal(getattr(mapped, name), getattr(read, name)) and not getattr(mapped, name).flags.writeable
    assert all(mapped.record(row) == read.record(row) and mapped.read(row, "json") == read.read(row, "json")
               for row in range(20))  # fmt: skip
    assert list(verify(folder)) == []


def test_columns_can_be_added_to_an_older_folder(folder):
    whole = (folder / "columns.safetensors").read_bytes()
    (folder / "columns.safetensors").unlink()
    index = index_of(folder)
    entry = index.pop("columns")
    (folder / "index.json").write_text(json.dumps(index))
    command = [sys.executable, "-m", "avssl.cli.shards", "index", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0 and "columns of 20 rows" in done.stdout
    assert index_of(folder)["columns"] == {"bytes": entry["bytes"], "sha256": entry["sha256"]}
    assert (folder / "columns.safetensors").read_bytes() == whole
    assert list(verify(folder)) == []


@pytest.mark.parametrize("change", ["flip", "truncate", "garbage"])
def test_damaged_columns_are_refused_and_found(folder, change):
    path = folder / "columns.safetensors"
    data = bytearray(path.read_bytes())
    data[-3] ^= 1
    path.write_bytes({"flip": data, "truncate": data[:-8], "garbage": b"\xff" * len(data)}[change])
    with pytest.raises(ShardError, match=r"columns\.safetensors: does not belong .* avssl-shards index"):
        ShardSet.open(folder)
    assert [problem.kind for problem in verify(folder)] == ["columns"]
    add_columns(folder)
    assert len(ShardSet.open(folder)) == 20


def test_columns_of_another_manifest_are_not_used(folder, tmp_path):
    """A folder put together by hand: right manifest, columns of another."""
    other = write_folder(tmp_path / "other", [made_up_clip(n) for n in range(3)])
    index = index_of(folder) | {"columns": index_of(other)["columns"]}
    (folder / "index.json").write_text(json.dumps(index))
    (folder / "columns.safetensors").write_bytes((other / "columns.safetensors").read_bytes())
    assert [line["source"] for line in map(ShardSet.open(folder).record, range(20))] == [
        line["source"] for line in lines_of(folder)
    ]


@pytest.mark.parametrize("header", [b"", b"\xff" * 8, b"\x02\0\0\0\0\0\0\0{}", b"\x01\0\0\0\0\0\0\0["])
def test_files_that_are_no_columns(tmp_path, header):
    path = tmp_path / layout.COLUMNS
    path.write_bytes(header)
    with pytest.raises(ShardError, match=r"columns\.safetensors: cannot be used"):
        manifest_of(path)


def test_a_large_manifest_is_not_hashed_but_its_lines_are_compared(folder, monkeypatch):
    monkeypatch.setattr("avssl.shards.folder._HASHED_BYTES", 0)
    path = folder / "manifest.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    key = lines_of(folder)[3]["id"].encode()
    path.write_bytes(b"".join([*lines[:3], lines[3].replace(key, key[::-1]), *lines[4:]]))
    shards = ShardSet.open(folder)
    assert shards.record(2)["row"] == 2
    with pytest.raises(ShardError, match=r"manifest\.jsonl: line 4 is not the one that was written"):
        shards.record(3)
    path.write_bytes(b"".join(lines[:-1]))
    with pytest.raises(ShardError, match="does not belong"):
        ShardSet.open(folder)


def test_pickles_stay_small_and_several_folders_join(folder, tmp_path):
    many = write_folder(tmp_path / "many", [made_up_clip(n, size=10) for n in range(2000)])
    shards = ShardSet.open([folder, many])
    assert shards.ids.nbytes > 16_000 and len(pickle.dumps(shards)) < 6000
    again = pickle.loads(pickle.dumps(shards))
    assert np.array_equal(again.ids, shards.ids) and again.record(1500) == shards.record(1500)
    mapped = Columns.map(many / layout.COLUMNS)
    assert len(pickle.dumps(mapped)) < 300
