"""The rendered world: deterministic, as labelled, mismatched by exactly the share asked for, and not trivial."""

import hashlib
import json
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from avssl.errors import ConfigError
from avssl.media import open_media, probe
from avssl.synthetic.world import (
    MANIFEST,
    ClipTruth,
    WorldConfig,
    plan_world,
    render_clip,
    truth_row,
    write_world,
)
from avssl.synthetic.world_scene import MAX_CLASSES, MOTIONS, SHAPES, TIMBRES, class_traits

SMALL = WorldConfig(clips=12, classes=4, duration_s=1.5, size_px=48, seed=3)


def hashes(folder):
    return {
        path.relative_to(folder): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_files_are_the_same_for_any_number_of_processes(tmp_path):
    done = []
    rows = write_world(SMALL, tmp_path / "one", advance=lambda: done.append(1))
    write_world(SMALL, tmp_path / "two", workers=2)
    assert hashes(tmp_path / "one") == hashes(tmp_path / "two")
    assert len(done) == len(rows) == 12
    assert [json.loads(line) for line in (tmp_path / "one" / MANIFEST).open()] == rows


def test_files_are_what_the_manifest_says(tmp_path):
    for row in write_world(replace(SMALL, clips=4, classes=2), tmp_path):
        info = probe(tmp_path / row["path"])
        assert (info.video.codec, info.audio.codec) == ("h264", "aac")
        assert (info.video.width_px, info.video.height_px, info.video.fps) == (48, 48, 16)
        assert (info.audio.rate_hz, info.audio.channels) == (24_000, 1)
        assert info.duration_s == pytest.approx(1.5, abs=0.05)
        assert row["path"].startswith(row["label"] + "/") and row["rendered"] is True


def test_encoded_picture_and_sound_are_the_rendered_ones_in_step(tmp_path):
    truth = plan_world(SMALL)[0]
    write_world(SMALL, tmp_path)
    frames, sound = render_clip(SMALL, truth)
    with open_media(tmp_path / truth.path) as media:
        shown = media.frames_at(np.arange(24) / 16)
        heard = media.audio_between(0.0, 1.5, rate_hz=24_000, channels="mono").samples
    assert np.abs(shown.data.astype(int) - frames).mean() < 12  # lossy, of 255
    lags = range(-240, 241, 24)
    match = [float((np.roll(sound[0], lag)[500:-500] * heard[0][500:-500]).sum()) for lag in lags]
    assert abs(lags[int(np.argmax(match))]) <= 24  # 1 ms


def test_a_clip_depends_on_seed_number_and_class_alone():
    frames, sound = render_clip(SMALL, ClipTruth(5, 1, 5, 1))
    for other in (replace(SMALL, clips=99), replace(SMALL, classes=9), replace(SMALL, mismatch=0.5)):
        again = render_clip(other, ClipTruth(5, 1, 5, 1))
        assert (again[0] == frames).all() and (again[1] == sound).all()
    longer = render_clip(replace(SMALL, duration_s=3.0), ClipTruth(5, 1, 5, 1))
    assert longer[0].shape[0] == 2 * frames.shape[0]
    for changed in (replace(SMALL, seed=4), replace(SMALL, variation=0.5), replace(SMALL, noise=0.0)):
        assert (render_clip(changed, ClipTruth(5, 1, 5, 1))[0] != frames).any()
    assert (render_clip(SMALL, ClipTruth(6, 1, 6, 1))[0] != frames).any()


@pytest.mark.parametrize("share", [0.0, 0.3, 0.5, 1.0])
def test_mismatched_share_is_exact_and_of_other_classes(share):
    config = WorldConfig(clips=97, classes=5, mismatch=share, seed=7)
    plan = plan_world(config)
    wrong = [truth for truth in plan if truth.mismatched]
    assert len(wrong) == round(share * 97)
    for truth in wrong:
        assert truth.sound_label != truth.label
        assert truth.sound_label == plan[truth.sound_clip].label
    assert all(
        truth.sound_clip == truth.clip and truth.sound_label == truth.label for truth in plan if truth not in wrong
    )
    assert Counter(truth.label for truth in plan) == Counter(t.label for t in plan_world(replace(config, mismatch=0.0)))


def test_a_mismatched_clip_carries_the_sound_of_the_other():
    config = replace(SMALL, mismatch=0.5)
    truth = next(truth for truth in plan_world(config) if truth.mismatched)
    donor = ClipTruth(truth.sound_clip, truth.sound_label, truth.sound_clip, truth.sound_label)
    frames, sound = render_clip(config, truth)
    assert (sound == render_clip(config, donor)[1]).all()
    assert (frames == render_clip(config, ClipTruth(truth.clip, truth.label, truth.clip, truth.label))[0]).all()
    row = truth_row(config, truth)
    assert row["mismatched"] and row["sound_label"] == class_traits(donor.label).name != row["label"]
    assert row["sound_events_s"] == truth_row(config, donor)["events_s"] != row["events_s"]


def test_classes_come_in_the_proportions_asked_for():
    assert set(Counter(truth.label for truth in plan_world(WorldConfig(clips=80, classes=8))).values()) == {10}
    weighted = plan_world(WorldConfig(clips=70, classes=3, class_weights=(4, 2, 1)))
    assert Counter(truth.label for truth in weighted) == {0: 40, 1: 20, 2: 10}
    uneven = plan_world(WorldConfig(clips=10, classes=3))
    assert sorted(Counter(truth.label for truth in uneven).values()) == [3, 3, 4]


def test_classes_differ_in_at_least_two_traits():
    traits = [class_traits(label) for label in range(MAX_CLASSES)]
    assert len({kind.name for kind in traits}) == MAX_CLASSES
    assert {kind.shape for kind in traits[:8]} == set(SHAPES)
    assert {kind.motion for kind in traits[:8]} == set(MOTIONS)
    assert {kind.timbre for kind in traits[:8]} == set(TIMBRES)
    for number, a in enumerate(traits):
        for b in traits[:number]:
            assert sum((a.shape != b.shape, a.motion != b.motion, a.timbre != b.timbre)) >= 2


def test_sounds_begin_at_the_events():
    config = WorldConfig(clips=1, duration_s=4.0, size_px=16, noise=0.0)
    for label in range(8):
        _, sound = render_clip(config, ClipTruth(label, label, label, label))
        events_s = truth_row(config, ClipTruth(label, label, label, label))["events_s"]
        power = np.convolve(sound[0] ** 2, np.ones(240) / 240, "same")
        inside = [t for t in events_s if 0.1 < t < 3.85]
        rises = [power[round((t + 0.03) * 24_000)] > power[round((t - 0.012) * 24_000)] for t in inside]
        assert inside and np.mean(rises) > 0.8, class_traits(label).name
        assert np.abs(sound).max() <= 1.0


def test_pictures_move_with_the_events():
    """The shape's motion is fastest or turns at events, so pictures change; a still picture would carry no rhythm."""
    config = WorldConfig(clips=1, size_px=48, noise=0.0)
    for label in range(8):
        frames, _ = render_clip(config, ClipTruth(label, label, label, label))
        change = np.abs(np.diff(frames.astype(int), axis=0)).mean(axis=(1, 2, 3))
        assert change.max() > 1.0, class_traits(label).name


def test_mean_colour_and_loudness_do_not_tell_the_class():
    """Nearest class mean on trivial statistics stays far below what the demo's model reaches."""
    config = WorldConfig(clips=96, classes=8, duration_s=1.0, size_px=32)
    labels, looks, sounds = [], [], []
    for truth in plan_world(config):
        frames, sound = render_clip(config, truth)
        labels.append(truth.label)
        looks.append([*frames.mean(axis=(0, 1, 2)), *frames.std(axis=(0, 1, 2))])
        sounds.append([np.log(np.abs(sound).mean() + 1e-4), np.log(sound.std() + 1e-4)])
    labels = np.array(labels)
    for features in (np.array(looks), np.array(sounds)):
        features = (features - features.mean(axis=0)) / features.std(axis=0)
        train = np.arange(96) % 2 == 0
        means = np.stack([features[train & (labels == label)].mean(axis=0) for label in range(8)])
        guesses = ((features[~train, None] - means) ** 2).sum(axis=2).argmin(axis=1)
        assert (guesses == labels[~train]).mean() < 0.4


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"clips": 0}, "clips is 0"),
        ({"classes": 33}, "classes is 33"),
        ({"mismatch": 1.5}, "mismatch is 1.5"),
        ({"mismatch": 0.5, "classes": 1}, "0 with a single class"),
        ({"size_px": 33}, "size_px is 33"),
        ({"class_weights": (1.0, 2.0)}, "one positive number a class"),
        ({"duration_s": 0.0}, "duration_s is 0.0"),
    ],
)
def test_refuses_settings_that_make_no_world(wrong, message):
    with pytest.raises(ConfigError, match=message):
        WorldConfig(**wrong)


def test_the_manifest_is_a_list_for_packing(tmp_path):
    from avssl.shards.build import build
    from avssl.shards.options import BuildOptions
    from avssl.shards.read import ShardSet
    from avssl.shards.sources import list_sources

    rows = write_world(replace(SMALL, clips=4, mismatch=0.5), tmp_path / "world")
    build(list_sources(tmp_path / "world" / MANIFEST), tmp_path / "shards", BuildOptions(), workers=1)
    shards = ShardSet.open(tmp_path / "shards")
    packed = {record["source"]: record for record in map(shards.record, range(len(shards)))}
    assert len(shards) == 4 and shards.has_audio.all() and shards.has_video.all()
    for row in rows:
        assert packed[row["path"]]["label"] == row["label"]
        assert packed[row["path"]]["meta"]["mismatched"] == row["mismatched"]
