"""Rendered 360° scenes: what is seen, heard and written down are in one direction; files are as shards take them."""

import hashlib
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from avssl.errors import ConfigError, UsageError
from avssl.media import encode_flac, open_media
from avssl.spatial.directions import angles_deg, direction
from avssl.spatial.formats import to_ambix
from avssl.spatial.views import see
from avssl.synthetic.scene360 import MANIFEST, render_clip360, truth_row, write_scenes360
from avssl.synthetic.scene360_config import Scene360Config
from avssl.synthetic.scene360_objects import draw_scene360
from avssl.synthetic.scene360_picture import pixel_directions
from avssl.synthetic.scene360_place import HUM_DB, Place, draw_place, hum

SMALL = Scene360Config(clips=2, duration_s=1.0, width_px=128, seed=5)
ONE = replace(SMALL, objects=(1, 1), ambience_db=(-80.0, -80.0), noise=0.0)


def loudest_deg(sound):
    """Azimuth and elevation of the sound's mean intensity."""
    w, y, z, x = sound
    flow = torch.tensor(np.array([(w * x).sum(), (w * y).sum(), (w * z).sum()]))
    return [angle.item() for angle in angles_deg(flow)]


def apart_deg(first, second):
    vectors = [direction(torch.tensor(float(a), dtype=torch.float64), float(e)) for a, e in (first, second)]
    return (vectors[0] @ vectors[1]).clamp(-1, 1).arccos().rad2deg().item()


def test_sound_comes_from_where_the_manifest_says():
    rate_hz, step = ONE.audio_rate_hz, round(0.25 * ONE.audio_rate_hz)
    checked = 0
    for clip in range(8):
        _, sound = render_clip360(ONE, clip)
        (truth,) = truth_row(ONE, clip)["objects"]
        for k in range(1, 4):
            moment = sound[:, k * step - rate_hz // 100 : k * step + rate_hz // 100]
            if np.abs(moment[0]).max() > 0.01:
                assert apart_deg(loudest_deg(moment), (truth["azimuth_deg"][k], truth["elevation_deg"][k])) < 4
                checked += 1
    assert checked > 6


def test_the_object_is_seen_where_the_manifest_says():
    """What the object changes in the picture has its middle there; its view, cut out, shows it in the centre."""
    config = replace(ONE, classes=1, width_px=256, duration_s=0.5, speed_deg_s=0.0)  # class 0 is a disc
    for clip in range(4):
        frames, _ = render_clip360(config, clip)
        (truth,) = truth_row(config, clip)["objects"]
        scene = draw_scene360(config, clip)
        middles = scene.objects[0].motion(np.arange(len(frames)) / config.fps)[0]
        moved = np.abs(frames[0].astype(int) - frames[4]).sum(-1) > 24  # where the disc was or is
        assert apart_deg((truth["azimuth_deg"][1], truth["elevation_deg"][1]), to_deg(middles[4])) < 0.1
        near = np.maximum(*(pixel_directions(256) @ middles[k].astype(np.float32) for k in (0, 4)))
        reach = np.cos(np.deg2rad(truth["diameter_deg"] / 2 + 3))
        assert moved.any() and (near[moved] > reach).all()
        azimuth, elevation = truth["azimuth_deg"][1], truth["elevation_deg"][1]
        view = torch.tensor([[[azimuth, elevation, 0.0, 4.0, 4.0]]])
        centre = see(torch.from_numpy(frames[4:5])[None], view, (3, 3))[0, 0, 0].float()
        assert centre.flatten(0, 1).std(0).max() < 12  # one colour: the disc's


def to_deg(vector):
    return [angle.item() for angle in angles_deg(torch.from_numpy(vector))]


def test_truth_is_a_list_of_directions_by_time():
    row = truth_row(replace(SMALL, objects=(3, 3)), 0)
    assert row["rendered"] is True and row["projection"] == "equirectangular" and row["ambisonics"] == "ambix"
    assert len({each["class"] for each in row["objects"]}) == 3
    homes = draw_scene360(replace(SMALL, objects=(3, 3)), 0).objects
    for first in homes:
        for second in homes:
            places = [(each.azimuth_deg, each.elevation_deg) for each in (first, second)]
            assert first is second or apart_deg(*places) >= 50
    for each in row["objects"]:
        assert len(each["azimuth_deg"]) == len(each["elevation_deg"]) == 5
        assert max(map(abs, each["azimuth_deg"])) <= 180 and max(map(abs, each["elevation_deg"])) <= 90
        assert each["events_s"]


def test_decoys_are_mono_and_not_seen():
    with_decoy, without = replace(ONE, decoys=1.0), ONE
    row = truth_row(with_decoy, 0)
    assert row["decoy"] is not None and row["decoy"] not in {each["class"] for each in row["objects"]}
    mixed, plain = render_clip360(with_decoy, 0), render_clip360(without, 0)
    assert np.array_equal(mixed[0], plain[0])
    scale = (mixed[1][1:] * plain[1][1:]).sum() / np.square(plain[1][1:]).sum()  # both are scaled to their peak
    extra = mixed[1] / scale - plain[1]
    assert np.square(extra[1:]).mean() < 0.01 * np.square(extra[0]).mean()


def test_ambience_is_diffuse():
    _, sound = render_clip360(replace(SMALL, objects=(0, 0), duration_s=4.0), 0)
    power = np.square(sound).mean(1)
    np.testing.assert_allclose(power[1:] / power[0], 1 / 3, rtol=0.02)
    assert np.abs(np.corrcoef(sound) - np.eye(4)).max() < 0.1


def test_the_background_has_no_seam():
    frames, _ = render_clip360(replace(SMALL, objects=(0, 0), noise=0.0), 0)
    picture = frames[0].astype(int)
    across = np.abs(picture[:, 0] - picture[:, -1]).mean()
    assert across < 3 * np.abs(np.diff(picture, axis=1)).mean() + 1


def test_files_are_the_same_for_any_number_of_processes(tmp_path):
    done = []
    rows = write_scenes360(SMALL, tmp_path / "one", advance=lambda: done.append(1))
    write_scenes360(SMALL, tmp_path / "two", workers=2)
    one, two = (
        [hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted((tmp_path / name).rglob("*.*"))]
        for name in ("one", "two")
    )
    assert one == two and len(one) == 3 and len(done) == 2
    assert [json.loads(line) for line in (tmp_path / "one" / MANIFEST).open()] == rows


@pytest.mark.parametrize(("track", "channels", "exact"), [("flac", 4, 3e-4), ("aac", 4, 0.1), ("youtube", 6, 0.1)])
def test_tracks_hold_the_scene_in_the_format_they_name(tmp_path, track, channels, exact):
    config = replace(SMALL, clips=1, track=track)
    (row,) = write_scenes360(config, tmp_path)
    frames, sound = render_clip360(config, 0)
    with open_media(tmp_path / row["path"]) as media:
        assert (media.info.video.width_px, media.info.video.height_px, media.info.audio.channels) == (128, 64, channels)
        heard = media.audio_between(0.0, 1.0, rate_hz=24_000, channels="all").samples
        shown = media.frames_at(np.arange(16) / 16).data
    found = to_ambix(torch.from_numpy(heard), row["ambisonics"]).numpy()
    assert np.sqrt(np.square(found - sound).mean()) < exact * np.sqrt(np.square(sound).mean())
    assert np.abs(shown.astype(int) - frames).mean() < 12


def test_shards_take_the_list_as_it_is(tmp_path):
    from avssl.shards.build import build
    from avssl.shards.options import BuildOptions
    from avssl.shards.read import ShardSet
    from avssl.shards.sources import list_sources

    rows = write_scenes360(SMALL, tmp_path / "scenes")
    options = BuildOptions(audio_channels="all", short_side_px=64)
    build(list_sources(tmp_path / "scenes" / MANIFEST), tmp_path / "shards", options)
    shards = ShardSet.open(tmp_path / "shards")
    for number, row in enumerate(rows):
        record = shards.record(number)
        assert record["audio"]["channels"] == 4 and record["video"]["width_px"] == 128
        assert record["meta"]["objects"] == row["objects"] and record["audio"]["ambisonics"] == "ambix"


def test_photos_and_sounds_of_the_user(tmp_path):
    gradient = np.broadcast_to(np.linspace(0, 255, 64, dtype=np.uint8)[:, None, None], (64, 128, 3))
    Image.fromarray(np.ascontiguousarray(gradient)).save(tmp_path / "sky.png")
    time_s = np.arange(12_000) / 24_000
    for name, pitch_hz in (("high", 2000), ("low", 200)):
        (tmp_path / "sounds" / name).mkdir(parents=True)
        tone = 0.3 * np.sin(2 * np.pi * pitch_hz * time_s)
        (tmp_path / "sounds" / name / "tone.flac").write_bytes(encode_flac(tone, 24_000))
    config = replace(ONE, classes=2, panoramas=(str(tmp_path / "sky.png"),), sounds=str(tmp_path / "sounds"))
    for clip in range(4):
        frames, sound = render_clip360(config, clip)
        row = truth_row(config, clip)
        assert row["panorama"] == "sky.png" and row["objects"][0]["events_s"] is None
        assert np.median(np.abs(frames[0].astype(int) - gradient)) <= 1
        peak_hz = np.abs(np.fft.rfft(sound[0])).argmax() / ONE.duration_s
        assert peak_hz == pytest.approx({"high": 2000, "low": 200}[row["label"]], rel=0.02)
        assert apart_deg(loudest_deg(sound), [np.median(row["objects"][0][key]) for key in ANGLES]) < 45


ANGLES = ("azimuth_deg", "elevation_deg")


def test_refuses_settings_and_files_that_make_no_scene(tmp_path):
    for wrong, message in (
        ({"clips": 0}, "clips is 0"),
        ({"objects": (3, 1)}, "objects is"),
        ({"objects": (1, 8), "decoys": 0.5}, "decoys is 0.5"),
        ({"width_px": 130}, "width_px is 130"),
        ({"track": "wav"}, "track is 'wav'"),
        ({"place": 1.5}, "place is 1.5"),
        ({"place": 0.5, "audio_rate_hz": 8000}, "place is 0.5"),
    ):
        with pytest.raises(ConfigError, match=message):
            Scene360Config(**wrong)
    with pytest.raises(ConfigError, match="do not fit"):
        draw_scene360(Scene360Config(objects=(8, 8), spacing_deg=90.0), 0)
    (tmp_path / "one").mkdir()
    with pytest.raises(ConfigError, match="1 folders of sounds"):
        Scene360Config(sounds=str(tmp_path)).class_names()
    Image.fromarray(np.zeros((10, 10, 3), np.uint8)).save(tmp_path / "square.png")
    (tmp_path / "text.png").write_text("no picture")
    for name, message in (("square.png", "10x10"), ("text.png", "cannot be read"), ("none.png", "cannot be read")):
        with pytest.raises(UsageError, match=message):
            render_clip360(replace(SMALL, panoramas=(str(tmp_path / name),)), 0)


def test_size_changes_how_large_objects_are_and_nothing_else():
    small, large = (draw_scene360(Scene360Config(size=size), 3).objects for size in (1.0, 1.5))
    assert len(small) == len(large) > 0
    for one, other in zip(small, large, strict=True):
        assert other.look.radius == pytest.approx(1.5 * one.look.radius)
        assert other.diameter_deg > 1.3 * one.diameter_deg
        assert (other.azimuth_deg, other.elevation_deg, other.name) == (one.azimuth_deg, one.elevation_deg, one.name)
        np.testing.assert_array_equal(other.look.events_s, one.look.events_s)
    with pytest.raises(ConfigError, match="size"):
        Scene360Config(size=0.0)


PLACES = replace(SMALL, clips=20, place=1.0)


def test_without_places_clips_are_what_they_were():
    frames, sound = render_clip360(replace(SMALL, place=0.0), 1)
    again = render_clip360(SMALL, 1)
    assert np.array_equal(frames, again[0]) and np.array_equal(sound, again[1])
    assert truth_row(SMALL, 1)["place"] is None and draw_scene360(SMALL, 1).place is None
    with_place = truth_row(PLACES, 1)
    assert with_place["place"] == {key: round(x, 4) for key, x in vars(draw_place(PLACES, 1)).items()}
    assert with_place | {"place": None} == truth_row(SMALL, 1), "what happens in a clip does not depend on its place"


def test_a_place_hums_at_its_pitches_from_everywhere():
    config = replace(PLACES, objects=(0, 0), ambience_db=(-80.0, -80.0), duration_s=4.0)
    for clip in range(3):
        _, sound = render_clip360(config, clip)
        power = np.square(sound).mean(1)
        np.testing.assert_allclose(power[1:] / power[0], 1 / 3, rtol=0.1)
        assert np.abs(np.corrcoef(sound) - np.eye(4)).max() < 0.15
        spectrum = np.square(np.abs(np.fft.rfft(sound[0])))
        found_hz = np.fft.rfftfreq(sound.shape[1], 1 / config.audio_rate_hz)
        near = np.any([np.abs(np.log2(found_hz[1:] / pitch)) < 0.3 for pitch in draw_place(config, clip).pitches_hz], 0)
        assert spectrum[1:][near].sum() > 0.99 * spectrum.sum()


def test_a_place_is_heard_and_seen_by_its_strength():
    frames, sound = zip(
        *(render_clip360(replace(PLACES, place=s, noise=0.0), 0) for s in (0.0, 0.25, 1.0)), strict=True
    )
    total = [each[0] / np.abs(each[0]).max() for each in sound]
    levels = [np.sqrt(np.square(own - total[0] * (own @ total[0]) / (total[0] @ total[0])).mean()) for own in total]
    assert 1e4 * levels[0] < levels[1] < levels[2]
    away = [np.abs(each[0].astype(float) - frames[2][0]).mean() for each in frames]  # from the whole place's picture
    assert away[1] == pytest.approx(0.75 * away[0], rel=0.05) and away[0] > 10 and away[2] == 0
    own = np.sqrt(np.square(hum(Place(0.1, 0.5, 0.9), 16_000, 16_000, np.random.default_rng(0))).mean())
    assert own == pytest.approx(1.0, rel=1e-3) and HUM_DB < 0


def test_ground_and_sky_have_the_colours_of_the_place():
    """Places of equal ground look alike below the horizon and sound alike in the low band, whatever their sky is."""
    config = replace(PLACES, objects=(0, 0), noise=0.0)
    places = [draw_place(config, clip) for clip in range(20)]
    pictures = [render_clip360(config, clip)[0][0].astype(float) for clip in range(20)]
    for name, rows in (("ground", slice(44, 64)), ("sky", slice(0, 20))):
        colours = np.stack([picture[rows].mean((0, 1)) for picture in pictures])
        colours /= np.linalg.norm(colours, axis=1, keepdims=True)
        numbers = np.array([getattr(place, name) for place in places])
        apart, unlike = np.abs(numbers[:, None] - numbers), 1 - colours @ colours.T
        pairs = np.triu_indices(20, 1)
        assert np.corrcoef(apart[pairs], unlike[pairs])[0, 1] > 0.6
