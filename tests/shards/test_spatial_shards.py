"""360° sources in shards: what is said about them, in options or lists, is converted and checked, never guessed."""

import numpy as np
import pytest
import torch

from avssl.errors import MediaError, UsageError
from avssl.media import decode_flac
from avssl.media.encode import MediaWriter
from avssl.shards.build import build
from avssl.shards.options import BuildOptions
from avssl.shards.read import ShardSet
from avssl.shards.sources import list_sources
from avssl.shards.spatial import AMBISONICS, check_projection, to_ambix
from avssl.spatial.formats import from_ambix
from avssl.spatial.formats import to_ambix as to_ambix_tensor

OPTIONS = {"clip_s": 2.0, "short_side_px": 32, "fps": 8.0, "audio_rate_hz": 8000}
RATE_HZ = 8000


def noise(channels, samples=RATE_HZ, level=0.1, seed=0):
    return (np.random.default_rng(seed).standard_normal((channels, samples)) * level).astype(np.float32)


def write_clip(path, sound, layout, size_px=(64, 128), codec="flac"):
    path.parent.mkdir(parents=True, exist_ok=True)
    with MediaWriter(path) as writer:
        video = writer.add_video(size_px, 8.0)
        audio = writer.add_audio(RATE_HZ, len(sound), codec=codec, layout=layout)
        for number in range(8):
            video.write(np.full((*size_px, 3), 10 * number, np.uint8))
        audio.write(sound)


@pytest.mark.parametrize("layout", AMBISONICS)
def test_conversion_is_that_of_the_tensors(layout):
    ambix = torch.from_numpy(noise(4)).double()
    channels = from_ambix(ambix, layout)
    found, gain = to_ambix(channels.float().numpy(), layout, "x")
    assert gain == 1.0 and found.dtype == np.float32
    np.testing.assert_allclose(found, to_ambix_tensor(channels, layout).numpy(), atol=1e-6)


@pytest.mark.parametrize("layout", ["ambix", "n3d", "fuma"])
def test_higher_orders_give_their_first(layout):
    ambix = torch.from_numpy(noise(16)).double()
    found, _ = to_ambix(from_ambix(ambix, layout).float().numpy(), layout, "x")
    np.testing.assert_allclose(found, ambix[:4].numpy(), atol=1e-6)


def test_loud_sound_is_lowered_in_all_channels_alike():
    fuma = noise(4, level=0.2)
    fuma[0, 7] = 0.95  # W of FuMa lies 3 dB lower
    found, gain = to_ambix(fuma, "fuma", "x")
    assert np.abs(found).max() == pytest.approx(1.0) and gain == pytest.approx(1 / (0.95 * 2**0.5))
    np.testing.assert_allclose(found[3] / fuma[1], gain, rtol=1e-5)


@pytest.mark.parametrize(
    ("channels", "layout"), [(1, "ambix"), (2, "ambix"), (6, "ambix"), (4, "youtube"), (2, "fuma")]
)
def test_other_numbers_of_channels_are_refused(channels, layout):
    with pytest.raises(MediaError, match=rf"{channels} sound channels, {layout}") as caught:
        to_ambix(noise(channels), layout, "x")
    assert caught.value.reason == "not-ambisonic"


def test_plain_surround_sound_is_not_taken_for_that_of_youtube():
    with pytest.raises(MediaError, match="may be plain"):
        to_ambix(noise(6), "youtube", "x")


@pytest.mark.parametrize(("width", "height", "right"), [(640, 320, 1), (640, 360, 1), (320, 320, 0), (640, 160, 0)])
def test_one_sphere_has_a_shape(width, height, right):
    class Picture:
        width_px, height_px = width, height

    if right:
        check_projection(Picture, "x")
    else:
        with pytest.raises(MediaError, match=f"{width}x{height}"):
            check_projection(Picture, "x")


def test_a_build(tmp_path):
    ambix = noise(4)
    write_clip(tmp_path / "ambix.mp4", ambix, "4.0")
    write_clip(tmp_path / "youtube.mp4", from_ambix(torch.from_numpy(ambix), "youtube").numpy(), "5.1")
    write_clip(tmp_path / "stereo.mp4", noise(2), "stereo")
    write_clip(tmp_path / "two_spheres.mp4", ambix, "4.0", size_px=(128, 128))
    (tmp_path / "list.csv").write_text(
        "path,ambisonics,projection,video\nambix.mp4,,,a\nyoutube.mp4,youtube,,b\n"
        "two_spheres.mp4,,,c\nstereo.mp4,none,none,d\n"
    )
    options = BuildOptions(**OPTIONS, ambisonics="ambix", projection="equirectangular")
    summary = build(list_sources(tmp_path / "list.csv"), tmp_path / "shards", options, workers=1)
    assert summary.rejected_by_reason == {"not-equirectangular": 1}
    shards = ShardSet.open(tmp_path / "shards")
    records = [shards.record(row) for row in range(len(shards))]
    assert [r["source"] for r in records] == ["ambix.mp4", "youtube.mp4", "stereo.mp4"]
    for record, layout in zip(records, ("ambix", "youtube"), strict=False):
        assert record["video"]["projection"] == "equirectangular" and record["meta"] == {
            "video": record["meta"]["video"]
        }
        audio = record["audio"]
        assert (audio["channels"], audio["ambisonics"], audio["source_ambisonics"]) == (4, "ambix", layout)
        stored, _ = decode_flac(shards.read(record["row"], "flac"))
        np.testing.assert_allclose(stored, ambix, atol=2e-4)
    assert "projection" not in records[2]["video"] and records[2]["audio"]["channels"] == 1
    # Another column makes another list.
    (tmp_path / "other.csv").write_text("path,projection\nambix.mp4,equirectangular\n")
    (tmp_path / "plain.csv").write_text("path\nambix.mp4\n")
    assert list_sources(tmp_path / "other.csv").sha256 != list_sources(tmp_path / "plain.csv").sha256


def test_stereo_is_rejected_by_name(tmp_path):
    write_clip(tmp_path / "in" / "stereo.mp4", noise(2), "stereo")
    options = BuildOptions(**OPTIONS, ambisonics="youtube")
    assert build(list_sources(tmp_path / "in"), tmp_path / "s", options, workers=1).rejected_by_reason == {
        "not-ambisonic": 1
    }


def test_other_builds_are_what_they_were():
    assert not {"ambisonics", "projection"} & set(BuildOptions().to_dict())
    both = BuildOptions(ambisonics="fuma").to_dict()
    assert (both["ambisonics"], both["projection"]) == ("fuma", "none")


def test_wrong_words_are_named(tmp_path):
    (tmp_path / "list.csv").write_text("path,ambisonics\nx.mp4,furse\n")
    with pytest.raises(UsageError, match=r"line 2: ambisonics is 'furse'; choose one of none, ambix"):
        list_sources(tmp_path / "list.csv")
    with pytest.raises(UsageError, match="ambisonics is 'furse'"):
        BuildOptions(ambisonics="furse")
    with pytest.raises(UsageError, match="copy"):
        BuildOptions(copy=True, projection="equirectangular")
