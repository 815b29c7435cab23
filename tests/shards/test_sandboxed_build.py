"""Packing in confined processes: the same bytes, and what a process answers is judged."""

import json
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from shard_builders import same_files, write_media

from avssl.sandbox.bounds import Bounds
from avssl.shards.answer import from_answer, to_answer
from avssl.shards.build import build
from avssl.shards.options import BuildOptions
from avssl.shards.sources import Entry, list_sources
from avssl.shards.transcode import Clip, Outcome, Rejected, sample_of
from avssl.shards.verify import verify

OPTIONS = BuildOptions(clip_s=2.0, min_clip_s=0.5, short_side_px=32, fps=8.0, audio_rate_hz=8000)
ENTRY = Entry("a/b.mp4", "/data/a/b.mp4", label="a", meta={"k": [1]})


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    root = tmp_path_factory.mktemp("videos")
    write_media(root / "dog" / "a.mp4", 3.0, seed=1)
    write_media(root / "cat" / "b.mkv", 2.0, seed=2)
    write_media(root / "cat" / "sound.flac", 2.5, video=False, seed=5)
    (root / "cat" / "bad.mp4").write_bytes(b"this is not a video" * 100)
    return root


def test_the_sandbox_changes_no_byte(videos, tmp_path):
    build(list_sources(videos), tmp_path / "plain", OPTIONS)
    summary = build(list_sources(videos), tmp_path / "confined", OPTIONS, workers=2, sandbox=Bounds())
    assert summary.rejected_by_reason == {"not-media": 1}
    assert same_files(tmp_path / "plain", tmp_path / "confined")
    assert list(verify(tmp_path / "confined", decode=10)) == []
    copy = BuildOptions(copy=True)
    build(list_sources(videos), tmp_path / "copy", copy)
    build(list_sources(videos), tmp_path / "confined-copy", copy, sandbox=Bounds())
    assert same_files(tmp_path / "copy", tmp_path / "confined-copy")


def test_too_little_memory_names_the_file(videos, tmp_path):
    """With 300 MiB the libraries load; a picture of 6000 x 8000 pixels does not fit."""
    folder = tmp_path / "large"
    write_media(folder / "large.avi", 0.5, size_px=(6000, 8000), audio=False)
    write_media(folder / "small.mp4", 1.0)
    options = BuildOptions(clip_s=2.0, min_clip_s=0.1, short_side_px=32, fps=8.0, audio_rate_hz=8000)
    summary = build(list_sources(folder), tmp_path / "out", options, sandbox=Bounds(memory_mb=300))
    assert summary.rows == 1 and summary.rejected == 1
    assert set(summary.rejected_by_reason) <= {"too-large", "corrupt", "worker-died"}


def test_a_vanished_source_is_missing(videos, tmp_path):
    listing = list_sources(videos)
    gone = [entry for entry in listing.entries if not entry.source.endswith("a.mp4")]
    (tmp_path / "moved").mkdir()
    path = videos / "dog" / "a.mp4"
    path.rename(tmp_path / "moved" / "a.mp4")
    try:
        summary = build(listing, tmp_path / "out", OPTIONS, sandbox=Bounds())
    finally:
        (tmp_path / "moved" / "a.mp4").rename(path)
    assert len(gone) == 3 and summary.rejected_by_reason == {"missing": 1, "not-media": 1}


@pytest.mark.parametrize(
    "outcome",
    [
        Outcome(3, Rejected("corrupt", "a picture at 1.2 s", 2.0)),
        Outcome(1, Rejected("missing", "no such file")),
        Outcome(2, Clip({"mp4": b"12", "flac": b""}, sample_of(ENTRY, 500, 2500, {"fps": 8.0, "frames": 16}, None))),
    ],
)
def test_answers_are_what_they_were(outcome):
    head, parts = to_answer(outcome)
    head = json.loads(json.dumps(head))
    assert from_answer(head, [bytearray(part) for part in parts], ENTRY, OPTIONS) == outcome


FACTS = {"start_s": 0.0, "end_s": 1.0, "video": None, "audio": {"rate_hz": 8}}
GOOD = {"clips": 1, "sample": FACTS, "members": ["flac"]}


@pytest.mark.parametrize(
    "change",
    [
        {"members": ["../../etc/cron.d/x"]}, {"members": ["json"]}, {"members": ["flac", "mp4"]}, {"clips": 10**12},
        {"clips": 0}, {"clips": True}, {"clips": "1"}, {"sample": None}, {"sample": {}}, {"rejected": ["corrupt"]},
        {"rejected": ["<b>", "x", None]}, {"rejected": ["corrupt", "x", math.nan]},
        {"sample": FACTS | {"start_s": -1}}, {"sample": FACTS | {"end_s": math.inf}},
        {"sample": FACTS | {"video": ["x"]}}, {"sample": FACTS | {"audio": {"rate_hz": math.nan}}},
        {"sample": FACTS | {"audio": {str(n): n for n in range(100)}}},
        {"sample": FACTS | {"video": {"projection": "x" * 1000}}},
    ],
    ids=str,
)  # fmt: skip
def test_an_answer_that_cannot_be_is_a_rejection(change):
    """What a process might say after a hostile file took it over."""
    assert isinstance(from_answer(GOOD, [bytearray(b"x")], ENTRY, OPTIONS).result, Clip)
    outcome = from_answer(GOOD | change, [bytearray(b"x")], ENTRY, OPTIONS)
    assert outcome.result.reason == "unexpected" and outcome.clips == 1


def test_source_label_and_id_are_not_taken_from_an_answer():
    lying = GOOD | {"sample": FACTS | {"source": "other.mp4", "label": "x", "id": "0" * 16, "meta": {"y": 1}}}
    sample = from_answer(lying, [bytearray(b"x")], ENTRY, OPTIONS).result.sample
    assert (sample["source"], sample["label"], sample["meta"]) == ("a/b.mp4", "a", {"k": [1]})
    assert sample == sample_of(ENTRY, 0, 1000, None, {"rate_hz": 8})


KEYS = st.sampled_from(["clips", "sample", "members", "rejected", "start_s", "video"])
anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=12,
)


@settings(max_examples=300, deadline=None)
@given(anything, st.lists(st.binary(max_size=4), max_size=3))
def test_any_answer_has_an_outcome_that_can_be_written(head, parts):
    outcome = from_answer(head, [bytearray(part) for part in parts], ENTRY, OPTIONS)
    json.dumps([outcome.clips, getattr(outcome.result, "sample", None), getattr(outcome.result, "detail", "")],
               allow_nan=False)  # fmt: skip
