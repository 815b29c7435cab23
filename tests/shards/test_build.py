"""From media files to shards, with real files and real worker processes."""

import itertools
import json
import random
import subprocess
import sys
import time

import numpy as np
import pytest
from shard_builders import same_files, write_media

from avssl.errors import ShardError, UsageError
from avssl.media import decode_flac, open_media, write_video
from avssl.shards.build import build
from avssl.shards.merge import merge
from avssl.shards.options import BuildOptions
from avssl.shards.read import ShardSet
from avssl.shards.sources import MEDIA_EXTENSIONS, Entry, Listing, list_sources
from avssl.shards.transcode import Clip, pack_clip, stored_size
from avssl.shards.verify import verify
from avssl.shards.write import Job

OPTIONS = BuildOptions(clip_s=2.0, min_clip_s=0.5, short_side_px=32, fps=8.0, audio_rate_hz=8000, shard_clips=4)


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    """Seven sources with 17 clips: two classes, several containers, one without sound, one without picture, one bad."""
    root = tmp_path_factory.mktemp("videos")
    write_media(root / "dog" / "long.mp4", 11.0, seed=1)
    write_media(root / "dog" / "b.mkv", 2.0, seed=2)
    write_media(root / "cat" / "c.avi", 3.0, seed=3)
    write_media(root / "cat" / "silent.mp4", 4.4, audio=False, seed=4)
    write_media(root / "cat" / "sound.flac", 2.5, video=False, seed=5)
    write_media(root / "cat" / "portrait.webm", 2.1, size_px=(80, 48), seed=6)
    (root / "dog" / "bad.mp4").write_bytes(b"this is not a video" * 100)
    return root


@pytest.fixture(scope="module")
def packed(videos, tmp_path_factory):
    out = tmp_path_factory.mktemp("packed") / "shards"
    summary = build(list_sources(videos), out, OPTIONS, workers=2)
    assert (summary.sources, summary.rows, summary.rejected_by_reason) == (7, 14, {"not-media": 1})
    return out


def test_rows_follow_sources_and_time(packed):
    shards = ShardSet.open(packed)
    records = [shards.record(row) for row in range(len(shards))]
    assert [(r["source"], r["start_s"], r["end_s"]) for r in records if r["source"] == "dog/long.mp4"] == [
        ("dog/long.mp4", start, min(start + 2.0, 11.0)) for start in (0.0, 2.0, 4.0, 6.0, 8.0, 10.0)
    ]
    assert [source for source, _ in itertools.groupby(r["source"] for r in records)] == [
        "cat/c.avi", "cat/portrait.webm", "cat/silent.mp4", "cat/sound.flac", "dog/b.mkv", "dog/long.mp4"
    ]  # fmt: skip
    assert {r["source"]: (r["video"] is not None, r["audio"] is not None) for r in records}["cat/silent.mp4"] == (
        True,
        False,
    )
    assert {r["source"]: (r["video"] is not None, r["audio"] is not None) for r in records}["cat/sound.flac"] == (
        False,
        True,
    )
    assert [r["label"] for r in records] == [r["source"].split("/")[0] for r in records]
    assert list(verify(packed, decode=100)) == []


def test_members_hold_what_the_source_shows_and_sounds_at_their_times(videos, packed):
    shards = ShardSet.open(packed)
    for row in range(len(shards)):
        record = shards.record(row)
        with open_media(videos / record["source"]) as media:
            if (video := record["video"]) is not None:
                with open_media(shards.read(row, "mp4")) as member:
                    assert member.info.audio is None and member.info.video.codec == "h264"
                    size_px = (video["height_px"], video["width_px"])
                    assert (member.info.video.height_px, member.info.video.width_px) == size_px
                    (stored,) = member.iter_frames(0.0, 8.0, pixels="yuv420p", chunk=1000)
                assert len(stored.data) == video["frames"] == video["duration_s"] * 8.0
                assert np.allclose(stored.times_s, np.arange(video["frames"]) / 8.0)
                wanted = media.frames_at(record["start_s"] + stored.times_s, size_px=size_px, pixels="yuv420p").data
                error = ((stored.data.astype(float) - wanted) ** 2).mean(axis=(1, 2))
                assert (10 * np.log10(255**2 / error)).min() > 30  # dB; a picture off by one has less than 20
            if (audio := record["audio"]) is not None:
                samples, rate_hz = decode_flac(shards.read(row, "flac"))
                assert (samples.shape, rate_hz) == ((1, audio["samples"]), 8000)
                wanted = media.audio_between(record["start_s"], audio["samples"] / 8000, rate_hz=8000, channels="mono")
                assert np.abs(samples - wanted.samples).max() < 1.1 / 32768
                assert (
                    abs(audio["samples"] / 8000 - (record["end_s"] - record["start_s"])) < 0.15
                )  # MP3 in AVI is padded


def test_same_bytes_for_any_number_of_workers_and_any_place(videos, packed, tmp_path):
    for workers in (1, 3):
        build(list_sources(videos), tmp_path / str(workers), OPTIONS, workers=workers)
        assert same_files(packed, tmp_path / str(workers))
    for path in packed.iterdir():
        assert str(videos).encode() not in path.read_bytes()


def test_finished_build_is_left_alone(videos, packed):
    before = {path: path.stat().st_mtime_ns for path in packed.iterdir()}
    summary = build(list_sources(videos), packed, OPTIONS)
    assert summary.complete and summary.rows == 14
    assert {path: path.stat().st_mtime_ns for path in packed.iterdir()} == before


def test_jobs_join_to_the_rows_of_one_build(videos, packed, tmp_path):
    listing = list_sources(videos)
    with pytest.raises(UsageError, match="no job"):
        merge(tmp_path)
    for index in range(3):
        build(listing, tmp_path, OPTIONS, job=Job(index, 3))
    with pytest.raises(ShardError, match="merge"):
        ShardSet.open(tmp_path)
    merge(tmp_path)
    assert list(verify(tmp_path)) == []
    assert not list(tmp_path.glob("job-*"))
    one, joined = ShardSet.open(packed), ShardSet.open(tmp_path)
    assert len(one) == len(joined)
    for row in range(len(one)):
        a, b = one.record(row), joined.record(row)
        assert {key: a[key] for key in a if key not in ("shard", "members")} == {
            key: b[key] for key in b if key not in ("shard", "members")
        }
        assert all(one.read(row, name) == joined.read(row, name) for name in one.members(row))
    assert (packed / "rejected.jsonl").read_bytes() == (tmp_path / "rejected.jsonl").read_bytes()
    assert merge(tmp_path).complete
    assert build(listing, tmp_path, OPTIONS).complete  # the same command without jobs finds it done


def test_merge_that_was_killed_goes_on(videos, tmp_path):
    listing = list_sources(videos)
    for index in range(2):
        build(listing, tmp_path / "whole", OPTIONS, job=Job(index, 2))
        build(listing, tmp_path / "killed", OPTIONS, job=Job(index, 2))
    merge(tmp_path / "whole")
    # What a kill after the first moves leaves behind.
    (tmp_path / "killed" / "job-0000" / "shard-000000.tar").rename(tmp_path / "killed" / "shard-000000.tar")
    merge(tmp_path / "killed")
    assert same_files(tmp_path / "whole", tmp_path / "killed")


def test_merge_refuses_missing_and_odd_jobs(videos, tmp_path):
    listing = list_sources(videos)
    build(listing, tmp_path, OPTIONS, job=Job(0, 3))
    build(listing, tmp_path, OPTIONS, job=Job(2, 3))
    with pytest.raises(ShardError, match="job 1 of 3 is missing"):
        merge(tmp_path)
    build(listing, tmp_path, BuildOptions(**OPTIONS.to_dict() | {"fps": 4.0}), job=Job(1, 3))
    with pytest.raises(ShardError, match=r"other options than job-0000: fps was 8\.0 and is 4\.0"):
        merge(tmp_path)


KILLED = """
import sys
from avssl.shards.build import build
from avssl.shards.options import BuildOptions
from avssl.shards.sources import list_sources
if __name__ == "__main__":
    build(list_sources(sys.argv[1]), sys.argv[2], BuildOptions(**eval(sys.argv[3])), workers=2)
"""


@pytest.mark.parametrize("finished", [False, True], ids=["before-index", "after-index"])
def test_half_written_files_of_a_killed_process_go(videos, packed, tmp_path, finished, monkeypatch):
    """What SIGKILL leaves while rejected.jsonl, the manifest or the index is written, or just after."""
    out = tmp_path / "out"
    if finished:
        build(list_sources(videos), out, OPTIONS)
    else:
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr("avssl.shards.write.ShardWriter.finish", interrupt)
            build(list_sources(videos), out, OPTIONS)
    (out / ".manifest.jsonl.4242.tmp").write_bytes(b"half a li")
    build(list_sources(videos), out, OPTIONS)
    assert same_files(packed, out)


def interrupt(writer):
    raise KeyboardInterrupt


def test_killed_at_any_moment_and_finished_is_the_same(videos, packed, tmp_path):
    script = tmp_path / "script.py"
    script.write_text(KILLED)
    out, moments = tmp_path / "out", random.Random(7)
    command = [sys.executable, script, videos, out, repr(OPTIONS.to_dict())]
    for shards in range(3):
        process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        while process.poll() is None and len(list(out.glob("*.tar"))) <= shards:
            time.sleep(0.01)
        time.sleep(0.2 * moments.random())
        process.kill()
        process.wait()
    assert list(out.glob("*.tar"))
    build(list_sources(videos), out, OPTIONS, workers=1)
    assert same_files(packed, out)


def rejected(out):
    return [json.loads(line) for line in (out / "rejected.jsonl").read_bytes().splitlines()]


def test_bad_inputs_are_rejected_by_name_and_reason(videos, tmp_path):
    root = tmp_path / "bad"
    good = write_media(root / "good.mp4", 1.0)
    data = (videos / "dog" / "long.mp4").read_bytes()
    (root / "cut.mp4").write_bytes(data[: len(data) * 2 // 3])
    (root / "empty.mp4").write_bytes(b"")
    (root / "playlist.mp4").write_text(f"#EXTM3U\n#EXTINF:5,\n{good}\n")
    write_media(root / "blink.mp4", 0.24)
    lines = [{"path": name} for name in ("cut.mp4", "empty.mp4", "playlist.mp4", "blink.mp4", "gone.mp4", ".")]
    lines += [{"path": "good.mp4", "start_s": 5}, {"path": "good.mp4"}, {"path": "good.mp4", "end_s": 1}]
    (tmp_path / "list.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    summary = build(list_sources(tmp_path / "list.jsonl", root=root), tmp_path / "out", OPTIONS)
    reasons = {(row["source"], row["start_s"]): row["reason"] for row in rejected(tmp_path / "out")}
    assert summary.rows == 1 and summary.rejected == 8
    assert reasons[("cut.mp4", None)] in {"truncated", "corrupt", "not-media"}
    assert reasons == reasons | {
        ("playlist.mp4", None): reasons[("playlist.mp4", None)],
        ("blink.mp4", None): "too-short",
        ("gone.mp4", None): "missing",
        (".", None): "missing",
        ("good.mp4", 5.0): "out-of-range",
        ("good.mp4", 0.0): "duplicate",
    }
    assert all(str(tmp_path) not in row["detail"] for row in rejected(tmp_path / "out"))


def pack_one(path, options=OPTIONS, **entry):
    outcome = pack_clip(Entry("x", str(path), **entry), 0, options, 60.0)
    return outcome.result


def test_streams_that_end_early_are_stored_to_their_end(tmp_path):
    for name in ("short.mp4", "short.webm", "short.mkv"):
        clip = pack_one(write_media(tmp_path / name, 0.8, audio_s=2.0))
        assert 6 <= clip.sample["video"]["frames"] <= 8  # 0.8 s and what the container rounds up, at 8 per second
        assert abs(clip.sample["audio"]["samples"] - 16000) < 200
        assert clip.sample["end_s"] == pytest.approx(2.0, abs=0.03)
        blink = pack_one(write_media(tmp_path / ("blink" + name), 0.24, audio_s=2.0))
        assert blink.sample["video"] is None and set(blink.members) == {"flac"}
    clip = pack_one(write_media(tmp_path / "quiet.mp4", 2.0, audio_s=0.7))
    assert clip.sample["video"]["frames"] == 16 and abs(clip.sample["audio"]["samples"] - 5600) < 250
    clip = pack_one(write_media(tmp_path / "pip.mp4", 2.0, audio_s=0.2))
    assert clip.sample["audio"] is None and set(clip.members) == {"mp4"}


def test_streams_that_begin_a_little_late_fill_their_first_clip(tmp_path):
    path = write_media(tmp_path / "late.flv", 2.0)
    options = BuildOptions(**OPTIONS.to_dict() | {"clip_s": 1.0, "min_clip_s": 1.0})
    with open_media(path) as media:
        assert max(media.info.video.start_s, media.info.audio.start_s) > 0
    clip = pack_one(path, options)
    assert (clip.sample["video"]["frames"], clip.sample["audio"]["samples"]) == (8, 8000)


class Unseekable:
    """What a live recorder writes to: nothing can be put into the header afterwards."""

    def __init__(self):
        self.data = bytearray()

    def write(self, data):
        self.data += bytes(data)


def test_live_recordings_do_not_say_how_long_they_are(tmp_path):
    file = Unseekable()
    pictures = [np.full((32, 48, 3), 8 * n, np.uint8) for n in range(25)]
    sound = {"audio": np.zeros((1, 120_000), np.float32), "audio_rate_hz": 48000}
    write_video(file, pictures, 10, container="webm", video_codec="libvpx", **sound)
    (tmp_path / "live.webm").write_bytes(file.data)
    outcomes = [pack_clip(Entry("x", str(tmp_path / "live.webm")), n, OPTIONS, 60.0) for n in range(2)]
    assert [(o.clips, o.result.sample["video"]["frames"]) for o in outcomes] == [(2, 16), (2, 4)]


@pytest.mark.parametrize("require", ["any", "both", "video", "audio"])
def test_require(videos, require):
    options = BuildOptions(**OPTIONS.to_dict() | {"require": require})
    results = {name: pack_one(videos / "cat" / name, options) for name in ("c.avi", "silent.mp4", "sound.flac")}
    assert isinstance(results["c.avi"], Clip)
    for name, missing in (("silent.mp4", "audio"), ("sound.flac", "video")):
        if require in ("both", missing):
            assert results[name].reason == f"no-{missing}" and require in results[name].detail
        else:
            assert isinstance(results[name], Clip)


@pytest.mark.parametrize(
    "width, height, short, expected",
    [
        (1280, 720, 128, (128, 228)), (720, 1280, 128, (228, 128)), (320, 240, 128, (128, 170)),
        (100, 60, 128, (60, 100)), (101, 61, 128, (60, 100)), (128, 128, 128, (128, 128)), (1, 1, 128, (2, 2)),
        (4000, 130, 128, (128, 3938)),
    ],
)  # fmt: skip
def test_stored_size(width, height, short, expected):
    assert stored_size(width, height, short) == expected


def test_small_and_odd_pictures_are_not_enlarged(tmp_path):
    path = tmp_path / "small.avi"
    from avssl.media import MediaWriter

    with MediaWriter(path) as writer:
        track = writer.add_video((25, 43), 10, codec="mpeg4")
        for number in range(15):
            track.write(np.full((25, 43, 3), number * 10, np.uint8))
    clip = pack_one(path)
    assert (clip.sample["video"]["width_px"], clip.sample["video"]["height_px"]) == (42, 24)
    with open_media(clip.members["mp4"]) as member:
        assert (member.info.video.width_px, member.info.video.height_px) == (42, 24)


def test_all_channels_and_stereo(videos):
    for channels, count in (("mono", 1), ("stereo", 2), ("all", 1)):
        options = BuildOptions(**OPTIONS.to_dict() | {"audio_channels": channels})
        clip = pack_one(videos / "cat" / "sound.flac", options)
        assert clip.sample["audio"]["channels"] == count == decode_flac(clip.members["flac"])[0].shape[0]


def test_ranges_are_cut_from_their_beginning_and_end_with_the_file(videos, tmp_path):
    (tmp_path / "list.csv").write_text("path,start,end\nlong.mp4,1.5,4.75\nlong.mp4,9.25,60\n")
    build(list_sources(tmp_path / "list.csv", root=videos / "dog"), tmp_path / "out", OPTIONS)
    shards = ShardSet.open(tmp_path / "out")
    assert [(shards.record(n)["start_s"], shards.record(n)["end_s"]) for n in range(3)] == [
        (1.5, 3.5), (3.5, 4.75), (9.25, 11.0)
    ]  # fmt: skip


def test_copy_keeps_the_bytes(videos, tmp_path):
    options = BuildOptions(copy=True)
    summary = build(list_sources(videos), tmp_path / "out", options, workers=2)
    assert (summary.rows, summary.rejected) == (6, 1)
    shards = ShardSet.open(tmp_path / "out")
    for row in range(6):
        record = shards.record(row)
        extension = record["source"].rpartition(".")[2]
        assert shards.members(row) == sorted([extension, "json"])
        assert shards.read(row, extension) == (videos / record["source"]).read_bytes()
        for kind in ("video", "audio"):
            if record[kind] is not None:
                assert shards.member_name(row, kind) == extension
    assert {shards.record(row)["end_s"] for row in range(6)} >= {11.0, 2.5}
    assert list(verify(tmp_path / "out", decode=6)) == []
    with pytest.raises(UsageError, match="whole files"):
        build(Listing([Entry("a", "a", start_s=1.0)]), tmp_path / "other", options)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"clip_s": 0}, "clip_s is 0"), ({"fps": float("nan")}, "fps is nan"), ({"min_clip_s": 3.0}, "min_clip_s"),
        ({"short_side_px": 33}, "even"), ({"shard_clips": 0}, "shard_clips"), ({"name": "a/b"}, "name is"),
        ({"require": "all"}, "choose one of any"), ({"audio_channels": "5.1"}, "choose one of mono"),
        ({"crf": 52}, "crf is 52"),
    ],
)  # fmt: skip
def test_impossible_options_are_refused(change, message):
    with pytest.raises(UsageError, match=message):
        BuildOptions(**OPTIONS.to_dict() | change)


def test_nothing_listed_is_refused(tmp_path):
    with pytest.raises(UsageError, match="no media to pack"):
        build(list_sources(tmp_path), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_real_media(media_dir, tmp_path):
    files = sorted(path.name for path in (media_dir / "video").iterdir() if path.suffix[1:] in MEDIA_EXTENSIONS)
    lines = [json.dumps({"path": name, "start_s": 1.25, "end_s": 3.25}) + "\n" for name in files]
    (tmp_path / "list.jsonl").write_text("".join(lines))
    summary = build(list_sources(tmp_path / "list.jsonl", root=media_dir / "video"), tmp_path / "out", workers=2)
    assert (summary.rows, summary.rejected) == (len(files), 0)
    assert list(verify(tmp_path / "out", decode=4)) == []
