"""Shards of files that say themselves what they are (SA3D, st3d, sv3d), and of those that contradict what is said."""

import re
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from avssl.errors import MediaError
from avssl.media import AudioInfo, SpatialInfo, decode_flac
from avssl.media.types import Ambisonics
from avssl.shards.build import build
from avssl.shards.options import BuildOptions
from avssl.shards.read import ShardSet
from avssl.shards.sources import list_sources
from avssl.shards.spatial import ambisonics_of, projection_of

sys.path.insert(0, str(Path(__file__).parents[1] / "media"))
from test_media_spherical import clip, put, sa3d, st3d, sv3d

BOX = Ambisonics(1, "acn", "sn3d", (0, 1, 2, 3), periphonic=True, head_locked_stereo=False)


def sound(channels=4, codec="flac"):
    return AudioInfo(1, codec, 48000, channels, "", 0.0, 1.0)


def box(**changes):
    return SpatialInfo(None, None, Ambisonics(**({**vars(BOX), **changes})))


def test_what_is_said_counts_where_the_file_says_nothing():
    assert ambisonics_of("fuma", SpatialInfo(), sound(), "x") == "fuma"
    assert ambisonics_of("none", box(), sound(), "x") == "none"
    assert projection_of("equirectangular", SpatialInfo(), "x") == "equirectangular"
    assert projection_of("none", SpatialInfo("cubemap"), "x") == "none"


def test_a_box_says_what_the_channels_are():
    assert ambisonics_of("declared", box(), sound(), "x") == "ambix"
    assert ambisonics_of("ambix", box(), sound(4, "aac"), "x") == "ambix"
    third = box(order=3, channel_map=tuple(range(16)))
    assert ambisonics_of("declared", third, sound(16), "x") == "ambix"
    assert projection_of("declared", SpatialInfo("equirectangular", "mono"), "x") == "equirectangular"


@pytest.mark.parametrize(
    ("said", "spatial", "info", "reason", "message"),
    [
        ("declared", SpatialInfo(), sound(), "undeclared", "no SA3D box that says what its 4 channels are$"),
        ("declared", SpatialInfo(), sound(6, "aac"), "undeclared", "six channels of AAC .* say youtube"),
        ("declared", SpatialInfo(), sound(2, "aac"), "undeclared", "its 2 channels"),
        ("declared", box(), sound(4, "aac"), "undeclared", "order in which AAC channels are decoded"),
        ("fuma", box(), sound(), "not-ambisonic", "is ambiX, not fuma"),
        ("declared", box(normalisation="type 1"), sound(), "not-ambisonic", "type 1"),
        ("ambix", box(periphonic=False), sound(), "not-ambisonic", "order 1"),
        ("declared", box(order=0, channel_map=(0,)), sound(1), "not-ambisonic", "order 0"),
        ("declared", box(), sound(6), "not-ambisonic", "in 4 channels, and has 6"),
    ],
)
def test_contradictions_are_named(said, spatial, info, reason, message):
    with pytest.raises(MediaError) as caught:
        ambisonics_of(said, spatial, info, "x")
    assert caught.value.reason == reason
    assert re.search(message, caught.value.detail)


@pytest.mark.parametrize(
    ("said", "spatial", "reason"),
    [
        ("declared", SpatialInfo(), "undeclared"),
        ("declared", SpatialInfo("cubemap", "mono"), "not-equirectangular"),
        ("equirectangular", SpatialInfo("mesh", "mono"), "not-equirectangular"),
        ("equirectangular", SpatialInfo("equirectangular", "top-bottom"), "stereoscopic"),
        ("equirectangular", SpatialInfo(None, "left-right"), "stereoscopic"),
    ],
)
def test_pictures_that_are_not_one_sphere_are_named(said, spatial, reason):
    with pytest.raises(MediaError) as caught:
        projection_of(said, spatial, "x")
    assert caught.value.reason == reason


def test_a_build_of_declared_files(tmp_path):
    plain, picture = clip(), st3d(0) + sv3d()
    files = {
        "a_in_order": put(put(plain, 0, picture), 1, sa3d()),
        "b_other_order": put(put(plain, 0, picture), 1, sa3d(channel_map=(0, 3, 1, 2))),
        "c_silent_about_sound": put(plain, 0, picture),
        "d_silent_about_picture": put(plain, 1, sa3d()),
        "e_two_pictures": put(put(plain, 0, st3d(1) + sv3d()), 1, sa3d()),
        "f_aac": put(put(clip(codec="aac"), 0, picture), 1, sa3d()),
    }
    for name, data in files.items():
        (tmp_path / "in").mkdir(exist_ok=True)
        (tmp_path / "in" / f"{name}.mp4").write_bytes(data)
    options = BuildOptions(
        clip_s=2.0, short_side_px=32, fps=8.0, audio_rate_hz=8000, ambisonics="declared", projection="declared",
        require="both",
    )  # fmt: skip
    summary = build(list_sources(tmp_path / "in"), tmp_path / "shards", options, workers=1)
    assert summary.rejected_by_reason == {"channel-map": 1, "stereoscopic": 1, "undeclared": 3}
    shards = ShardSet.open(tmp_path / "shards")
    assert [shards.record(row)["source"] for row in range(len(shards))] == ["a_in_order.mp4"]
    record = shards.record(0)
    assert record["video"]["projection"] == "equirectangular"
    assert (record["audio"]["ambisonics"], record["audio"]["source_ambisonics"]) == ("ambix", "declared")
    build(
        list_sources(tmp_path / "in" / "a_in_order.mp4"),
        tmp_path / "said",
        replace(options, ambisonics="ambix"),
        workers=1,
    )
    as_said = ShardSet.open(tmp_path / "said")
    stored, same = (decode_flac(each.read(0, "flac"))[0] for each in (shards, as_said))
    np.testing.assert_array_equal(stored, same)
