"""Files in, tables out: against a slow reference that knows nothing of streaming, and through faults and restarts."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from tiny_media import moving_pictures, save_tiny_model, write_clip

import avssl
from avssl.embedding.run import Listener, embed_to_file, options_for
from avssl.embedding.sources import find_units
from avssl.embedding.stream import embed_item
from avssl.errors import UsageError
from avssl.media import open_media
from avssl.media.encode import MediaWriter


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return avssl.load(save_tiny_model(tmp_path_factory.mktemp("model")))


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    """Three good files: both streams, picture only, digital silence."""
    folder = tmp_path_factory.mktemp("clips")
    write_clip(folder / "a" / "both.mp4", 3.5, seed=1)
    write_clip(folder / "b" / "mute.mkv", 2.5, sound=None, seed=2)
    write_clip(folder / "c" / "silent.mov", 1.2, fps=10, sound="silence", seed=3)
    return folder


def embed(model, sources, output, *, overwrite=False, listener=None, **options):
    sources = sources if isinstance(sources, list) else [sources]
    chosen = options_for(model, **options)
    return embed_to_file(
        model, find_units(sources), output, chosen, overwrite=overwrite, listener=listener, model_name="random"
    )


def load(path):
    with np.load(path, allow_pickle=False) as columns:
        return {name: columns[name] for name in columns}


def rows_of(model, file, **options):
    (item,) = next(iter(find_units([file]))).load()
    return list(embed_item(model, item, options_for(model, **options)))


def reference(model, file, start_s, end_s, kind):
    """The embedding of a window by its definition, clip by clip, with random access and no batches."""
    with open_media(file) as media:
        stream = getattr(media.info, kind)
        first_s, last_s = max(start_s, stream.start_s), min(end_s, stream.start_s + stream.duration_s)
        expects = model.video_input if kind == "video" else model.audio_input
        clip_s = expects.duration_s
        count = max(1, int((last_s - first_s) / clip_s + 1e-6))
        vectors = []
        for number in range(count):
            middle_s = first_s + (number + 0.5) * (last_s - first_s) / count
            begin_s = min(
                max(middle_s - clip_s / 2, stream.start_s),
                max(stream.start_s, stream.start_s + stream.duration_s - clip_s),
            )
            if kind == "video":
                begin_s = stream.start_s + np.floor((begin_s - stream.start_s) * expects.fps + 0.5) / expects.fps
                times_s = begin_s + np.arange(expects.frames) / expects.fps
                times_s = np.minimum(times_s, stream.start_s + stream.duration_s - 1e-3)
                frames = media.frames_at(times_s, short_side_px=expects.resize_px)
                vectors.append(model.encode_video(frames.data))
            else:
                audio = media.audio_between(begin_s, clip_s, rate_hz=expects.rate_hz, channels="mono")
                vectors.append(model.encode_audio(audio.samples, expects.rate_hz))
        mean = torch.stack(vectors).double().mean(0)
        return (mean / mean.norm()).numpy()


@pytest.mark.parametrize(("window_s", "hop_s"), [(2, 1), (1.3, 0.7), (0.2, 1.0)])
def test_rows_are_what_the_definition_says(model, clips, window_s, hop_s):
    file = clips / "a" / "both.mp4"
    rows = rows_of(model, file, window_s=window_s, hop_s=hop_s)
    with open_media(file) as media:
        duration_s = media.info.duration_s
    assert rows[-1]["end_s"] > duration_s - 0.1 * min(window_s, hop_s) - (hop_s if hop_s > window_s else 0)
    for number, row in enumerate(rows):
        assert row["start_s"] == pytest.approx(number * hop_s)
        assert row["end_s"] == pytest.approx(min(number * hop_s + window_s, duration_s), abs=1e-5)
        for kind in ("video", "audio"):
            assert row[f"has_{kind}"]
            assert row[kind] @ reference(model, file, row["start_s"], row["end_s"], kind) == pytest.approx(1, abs=1e-5)
    if hop_s > 0.5:
        assert rows[0]["video"] @ rows[1]["video"] < 1 - 1e-6  # the reference could not fail on equal pictures


def test_present_streams_give_unit_rows_and_absent_ones_marked_zeros(model, clips, tmp_path):
    soundfile.write(tmp_path / "sound.wav", np.random.default_rng(0).standard_normal((30000, 2)) * 0.1, 8000)
    report = embed(model, [clips, tmp_path / "sound.wav"], tmp_path / "out.npz")
    rows = load(tmp_path / "out.npz")
    assert not report.failed
    has = {
        Path(str(path)).name: (bool(video), bool(audio))
        for path, video, audio in zip(rows["path"], rows["has_video"], rows["has_audio"], strict=True)
    }
    assert has == {
        "both.mp4": (True, True),
        "mute.mkv": (True, False),
        "silent.mov": (True, True),  # silence is sound
        "sound.wav": (False, True),
    }
    for kind in ("video", "audio"):
        lengths = np.linalg.norm(rows[kind], axis=1)
        assert lengths[rows[f"has_{kind}"]] == pytest.approx(1, abs=1e-5)
        assert (lengths[~rows[f"has_{kind}"]] == 0).all()


def test_sound_whose_header_guesses_its_length_is_read_to_its_end(model, tmp_path):
    """MP3 without a table of contents: the bit rate of the first second says nothing about the rest."""
    parts = []
    for bit_rate, duration_s in ((64000, 2), (320000, 6)):
        with MediaWriter(tmp_path / "part.mp3", muxer_options={"write_xing": "0", "id3v2_version": "0"}) as writer:
            sound = writer.add_audio(44100, 2, bit_rate=bit_rate)
            sound.write(np.random.default_rng(0).normal(0, 0.1, (2, 44100 * duration_s)))
        parts.append((tmp_path / "part.mp3").read_bytes())
    for name, content in (("slow_first.mp3", parts[0] + parts[1]), ("fast_first.mp3", parts[1] + parts[0])):
        (tmp_path / name).write_bytes(content)
        rows = rows_of(model, tmp_path / name)
        assert rows[-1]["end_s"] == pytest.approx(8.0, abs=0.15), name


def test_a_sound_that_is_no_number_is_a_bad_file(model, clips, tmp_path):
    samples = np.zeros((24000, 1), np.float32)
    samples[5000] = np.nan
    soundfile.write(tmp_path / "nan.wav", samples, 24000, subtype="FLOAT")
    report = embed(model, [tmp_path / "nan.wav", clips / "b"], tmp_path / "out.npz")
    assert [one["reason"] for one in report.failed] == ["not-finite"]
    assert report.rows > 0


def test_rows_depend_neither_on_the_batch_nor_on_the_company(model, clips, tmp_path):
    embed(model, clips, tmp_path / "all.npz", batch_size=5)
    embed(model, clips / "b", tmp_path / "one.npz", batch_size=1)
    together, alone = load(tmp_path / "all.npz"), load(tmp_path / "one.npz")
    same = np.array([str(path).endswith("mute.mkv") for path in together["path"]])
    assert np.abs(together["video"][same] - alone["video"]).max() < 1e-5
    assert np.array_equal(together["start_s"][same], alone["start_s"])


@pytest.mark.parametrize("suffix", [".npz", ".parquet"])
def test_twice_the_same_is_the_same_file(model, clips, tmp_path, suffix):
    for name in ("a", "b"):
        embed(model, clips, tmp_path / (name + suffix))
    assert (tmp_path / f"a{suffix}").read_bytes() == (tmp_path / f"b{suffix}").read_bytes()


def test_pool_mean_is_the_mean_of_the_windows(model, clips):
    file = clips / "a" / "both.mp4"
    windows = rows_of(model, file, layers=["pool"])
    (pooled,) = rows_of(model, file, layers=["pool"], pool="mean")
    assert (pooled["start_s"], pooled["end_s"]) == (0, windows[-1]["end_s"])
    for name in ("video", "audio", "video.pool", "audio.pool"):
        mean = np.mean([row[name] for row in windows], axis=0)
        expected = mean if "." in name else mean / np.linalg.norm(mean)
        assert pooled[name] == pytest.approx(expected, abs=1e-5)


def test_layers_are_the_stages_averaged(model, clips):
    file = clips / "a" / "both.mp4"
    (row,) = rows_of(model, file, layers=["video.conv3x"], window_s=0.5, hop_s=100)
    with open_media(file) as media:
        frames = media.frames_at(np.arange(8) / 16, short_side_px=model.video_input.resize_px)
    expected = model.encode_video(frames.data, layers=["conv3x"])["conv3x"]
    assert row["video.conv3x"] == pytest.approx(expected.numpy(), abs=1e-5)
    assert "audio.conv3x" not in row


def test_what_the_model_lacks_is_refused(model, tmp_path):
    with pytest.raises(UsageError, match=r"no layer 'conv9'; valid: video\.conv1"):
        options_for(model, layers=["conv9"])
    deaf = avssl.load(save_tiny_model(tmp_path / "deaf", modalities=("video",)))
    assert options_for(deaf).modalities == ("video",)
    with pytest.raises(UsageError, match="no audio tower"):
        options_for(deaf, modalities=["audio"])


def test_one_modality_makes_only_its_columns(model, clips, tmp_path):
    report = embed(model, clips, tmp_path / "out.npz", modalities=["audio"])
    assert sorted(load(tmp_path / "out.npz")) == ["audio", "end_s", "has_audio", "meta", "path", "start_s"]
    assert [(Path(one["path"]).name, one["reason"]) for one in report.failed] == [("mute.mkv", "no-audio")]


class Stop(Listener):
    """Pretends that the process is killed when the n-th file is done."""

    def __init__(self, after):
        self.left = after

    def done(self, items):
        self.left -= 1
        if not self.left:
            raise KeyboardInterrupt


def test_an_interrupted_run_goes_on_and_gives_the_same_file(model, clips, tmp_path):
    embed(model, clips, tmp_path / "whole.npz")
    with pytest.raises(KeyboardInterrupt):
        embed(model, clips, tmp_path / "out.npz", listener=Stop(3))
    assert not (tmp_path / "out.npz").exists()
    report = embed(model, clips, tmp_path / "out.npz")
    assert report.kept == 2  # the third was under way
    assert (tmp_path / "out.npz").read_bytes() == (tmp_path / "whole.npz").read_bytes()
    assert not (tmp_path / "out.npz.parts").exists()


def test_a_finished_output_is_not_made_again_and_not_lost(model, clips, tmp_path):
    output = tmp_path / "out.npz"
    rows = embed(model, clips, output).rows
    before = output.stat().st_mtime_ns
    report = embed(model, clips, output)
    assert report.already_complete
    assert report.rows == rows
    assert output.stat().st_mtime_ns == before
    with pytest.raises(UsageError, match=r"other settings \(hop_s 1\.0 instead of 0\.5\).*--overwrite"):
        embed(model, clips, output, hop_s=0.5)
    with pytest.raises(UsageError, match="other files or older ones; add --overwrite"):
        embed(model, clips / "a", output)
    assert embed(model, clips, output, hop_s=0.5, overwrite=True).rows > rows
    np.savez(tmp_path / "mine.npz", a=np.zeros(3))
    with pytest.raises(UsageError, match="is not an output of avssl-embed"):
        embed(model, clips, tmp_path / "mine.npz")


def test_parts_of_other_settings_are_refused(model, clips, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        embed(model, clips, tmp_path / "out.npz", listener=Stop(2))
    with pytest.raises(UsageError, match=r"holds an unfinished run.*window_s 2\.0 instead of 3"):
        embed(model, clips, tmp_path / "out.npz", window_s=3)
    assert embed(model, clips, tmp_path / "out.npz", window_s=3, overwrite=True).kept == 0


def test_a_bad_file_is_left_out_and_tried_again(model, clips, tmp_path):
    folder = tmp_path / "in"
    good = write_clip(folder / "good.mp4", 1.0)
    (folder / "bad.mp4").write_bytes(good.read_bytes()[: good.stat().st_size // 2])
    (folder / "text.mkv").write_text("#EXTM3U\n/etc/passwd\n")
    seen = []

    class Seen(Listener):
        def failed(self, error):
            seen.append(str(error))

    report = embed(model, folder, tmp_path / "out.npz", listener=Seen())
    assert {Path(one["path"]).name for one in report.failed} == {"bad.mp4", "text.mkv"}
    assert all(one["reason"] and one["detail"] for one in report.failed)
    assert len(seen) == 2
    assert all("\n" not in sentence for sentence in seen)
    assert report.rows == 1
    assert json.loads(str(load(tmp_path / "out.npz")["meta"]))["failed"] == report.failed

    (folder / "bad.mp4").write_bytes(good.read_bytes())
    (folder / "text.mkv").unlink()
    report = embed(model, folder, tmp_path / "out.npz")
    assert (report.kept, report.rows, report.failed) == (1, 2, [])
    assert not (tmp_path / "out.npz.parts").exists()


def test_a_changed_file_is_made_anew(model, tmp_path):
    folder = tmp_path / "in"
    write_clip(folder / "a.mp4", 1.0)
    write_clip(folder / "b.mp4", 1.0)
    with pytest.raises(KeyboardInterrupt):
        embed(model, folder, tmp_path / "out.npz", listener=Stop(2))
    write_clip(folder / "a.mp4", 4.0, seed=5)
    report = embed(model, folder, tmp_path / "out.npz")
    assert report.kept == 0
    assert report.rows == 4


def test_nothing_embedded_leaves_nothing_behind(model, tmp_path):
    (tmp_path / "bad.mp4").write_bytes(b"no video at all")
    report = embed(model, tmp_path / "bad.mp4", tmp_path / "out.npz")
    assert report.rows == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bad.mp4"]


def test_folders_are_searched_in_order_and_files_taken_once(clips, tmp_path):
    units = find_units([clips / "b", clips, clips / "a" / "both.mp4"])
    assert [Path(unit.name).name for unit in units] == ["mute.mkv", "both.mp4", "silent.mov"]
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "notes.txt").write_text("hello")
    with pytest.raises(UsageError, match="no media files in this folder"):
        find_units([tmp_path / "empty"])
    with pytest.raises(UsageError, match="no such file or folder"):
        find_units([tmp_path / "absent.mp4"])


_PEAK = """
import resource, sys
import avssl
from avssl.embedding.run import embed_to_file, options_for
from avssl.embedding.sources import find_units
model = avssl.load(sys.argv[1])
# Hops skip most windows, but every picture and sample is decoded and every clip cut from the same buffer.
options = options_for(model, window_s=0.5, hop_s=10.0)
for path in sys.argv[2:]:
    embed_to_file(model, find_units([path]), path + ".npz", options)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
"""


def write_long_clip(path, minutes):
    """Written as it is made, so that the builder needs no memory either."""
    pictures = moving_pictures(60)
    tone = np.sin(np.arange(60 * 8000) * 0.2)[None] * 0.3
    with MediaWriter(path) as writer:
        video = writer.add_video(pictures.shape[1:3], 1)
        sound = writer.add_audio(8000, codec="pcm_s16le")
        for _ in range(minutes):
            for number, picture in enumerate(pictures):
                video.write(picture)
                sound.write(tone[:, number * 8000 : (number + 1) * 8000])
    return path


def test_memory_does_not_grow_with_the_duration(tmp_path):
    save_tiny_model(tmp_path / "model")
    files = [write_long_clip(tmp_path / f"{minutes}.mkv", minutes) for minutes in (5, 40)]
    command = [sys.executable, "-c", _PEAK, str(tmp_path / "model"), *map(str, files)]
    environment = os.environ | {"MALLOC_ARENA_MAX": "1"}  # fewer free lists of the allocator, less noise
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    short_mib, long_mib = map(int, done.stdout.split())
    # Thirty-five more minutes are 200 MB of sound and 700 MB of pictures at the model's rates.
    assert long_mib - short_mib < 150, f"{short_mib} MiB for five minutes, {long_mib} MiB for forty"
