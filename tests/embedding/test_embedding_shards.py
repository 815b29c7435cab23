"""Packed clips: a row a window, in the time of the source, with row, id and label carried along."""

from pathlib import Path

import numpy as np
import pytest
from tiny_media import save_tiny_model, write_clip

import avssl
from avssl.embedding.run import embed_to_file, options_for
from avssl.embedding.sources import find_units
from avssl.errors import ShardError
from avssl.shards.build import build
from avssl.shards.options import BuildOptions
from avssl.shards.read import ShardSet
from avssl.shards.sources import list_sources


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return avssl.load(save_tiny_model(tmp_path_factory.mktemp("model")))


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sources")
    write_clip(folder / "dog" / "long.mp4", 9.0, seed=1)
    write_clip(folder / "cat" / "mute.mp4", 3.0, sound=None, seed=2)
    return folder


def pack(sources, out, **options):
    build(list_sources(sources), out, BuildOptions(clip_s=4.0, short_side_px=72, shard_clips=2, **options))
    return out


def embed(model, source, output, **options):
    report = embed_to_file(model, find_units([source]), output, options_for(model, **options))
    with np.load(output, allow_pickle=False) as columns:
        return report, {name: columns[name] for name in columns}


def test_clips_of_shards_have_rows_in_source_time(model, sources, tmp_path):
    shards = ShardSet.open(pack(sources, tmp_path / "shards"))
    report, rows = embed(model, tmp_path / "shards", tmp_path / "out.npz")
    assert report.items == len(shards) == 4
    assert not report.failed
    for row in range(len(shards)):
        record, mine = shards.record(row), rows["row"] == row
        assert set(rows["path"][mine]) == {record["source"]}
        assert set(rows["id"][mine]) == {record["id"]}
        assert set(rows["label"][mine]) == {record["label"]}
        assert rows["start_s"][mine][0] == record["start_s"]
        assert rows["end_s"][mine][-1] == pytest.approx(record["end_s"], abs=0.05)
        assert np.diff(rows["start_s"][mine]) == pytest.approx(1.0)
        assert (rows["has_video"][mine] == shards.has_video[row]).all()
        assert (rows["has_audio"][mine] == shards.has_audio[row]).all()
    assert list(rows["row"]) == sorted(rows["row"])
    for kind in ("video", "audio"):
        assert np.linalg.norm(rows[kind][rows[f"has_{kind}"]], axis=1) == pytest.approx(1, abs=1e-5)


def test_packed_clips_embed_as_their_sources_do(model, sources, tmp_path):
    """Up to what the packing loses, which is less than from one window to another."""
    pack(sources, tmp_path / "shards")
    _, packed = embed(model, tmp_path / "shards", tmp_path / "packed.npz")
    _, direct = embed(model, sources, tmp_path / "direct.npz")
    at = {float(time): n for n, time in enumerate(direct["start_s"]) if "long" in str(direct["path"][n])}
    pairs = [(n, at.get(float(packed["start_s"][n]))) for n in np.flatnonzero(packed["label"] == "dog")]
    same_span = [
        (a, b) for a, b in pairs if b is not None and packed["end_s"][a] == pytest.approx(direct["end_s"][b], abs=0.05)
    ]
    assert len(same_span) >= 6
    for kind in ("video", "audio"):
        alike = packed[kind][[a for a, _ in same_span]] @ direct[kind][[b for _, b in same_span]].T
        others = alike[~np.eye(len(alike), dtype=bool)]
        assert np.diag(alike).mean() > others.mean() + 0.5 * (1 - others.mean())


def test_copied_files_embed_exactly_as_their_sources_do(model, sources, tmp_path):
    pack(sources, tmp_path / "copied", copy=True)
    _, packed = embed(model, tmp_path / "copied", tmp_path / "packed.npz", pool="mean")
    _, direct = embed(model, sources, tmp_path / "direct.npz", pool="mean")
    assert [Path(str(path)).name for path in direct["path"]] == [Path(str(path)).name for path in packed["path"]]
    for name in ("video", "audio", "start_s", "end_s", "has_audio"):
        assert np.array_equal(packed[name], direct[name])


def test_a_damaged_clip_is_named_and_the_rest_goes_on(model, sources, tmp_path):
    shards = ShardSet.open(pack(sources, tmp_path / "shards"))
    offset, size = shards.record(1)["members"]["mp4"]
    with shards.path(int(shards.shard[1])).open("r+b") as tar:
        tar.seek(offset)
        tar.write(bytes(size))
    report, rows = embed(model, tmp_path / "shards", tmp_path / "out.npz")
    (failure,) = report.failed
    assert failure["path"].startswith(shards.record(1)["source"])
    assert failure["reason"] == "not-media"
    assert sorted(set(rows["row"])) == [0, 2, 3]


def test_an_unfinished_shard_folder_is_refused(tmp_path):
    (tmp_path / "shards" / ".build").mkdir(parents=True)
    with pytest.raises(ShardError, match="this build is not finished"):
        find_units([tmp_path / "shards"])
