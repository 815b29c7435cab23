"""Models that hear four channels: each reaches its own input, and nothing is made up where there are fewer."""

import numpy as np
import pytest
import soundfile
import torch
from tiny_media import moving_pictures

import avssl
from avssl.embedding.run import embed_to_file, options_for
from avssl.embedding.sources import find_units
from avssl.media import MediaWriter
from avssl.models.config import AudioInput, FrontEndConfig, ModelConfig, TowerConfig
from avssl.models.folder import save_model
from avssl.models.two_tower import TwoTower
from avssl.shards.build import build
from avssl.shards.options import BuildOptions
from avssl.shards.sources import list_sources

RATE_HZ = 24000


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """Random towers without heads, as published AVSA models are, that take 1 s of four channels."""
    config = ModelConfig(
        video=TowerConfig("tiny_video"),
        audio=TowerConfig("tiny_audio"),
        audio_input=AudioInput(rate_hz=RATE_HZ, duration_s=1.0, channels=4, front_end=FrontEndConfig("log_mel")),
        head=None,
    )
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("model")
    save_model(folder, TwoTower(config), config, card="# random weights, for tests\n")
    return avssl.load(folder)


def sound(channels, duration_s=1.0, seed=0):
    """Noise [channels, S]; each channel twice as loud as the next."""
    noise = np.random.default_rng(seed).standard_normal((channels, round(duration_s * RATE_HZ))) * 0.1
    return (noise / 2.0 ** np.arange(channels)[:, None]).astype(np.float32)


def write_wav(path, samples):
    soundfile.write(path, samples.T, RATE_HZ, subtype="FLOAT")
    return path


def write_movie(path, samples, **options):
    pictures = moving_pictures(16)
    with MediaWriter(path) as writer:
        video = writer.add_video(pictures.shape[1:3], 16)
        audio = writer.add_audio(RATE_HZ, len(samples), **options)
        for picture in pictures:
            video.write(picture)
        audio.write(samples)
    return path


def embed(model, sources, output, **options):
    report = embed_to_file(model, find_units(sources), output, options_for(model, **options), model_name="random")
    with np.load(output, allow_pickle=False) as columns:
        return report, dict(columns)


def test_four_channels_stay_four_in_their_order(model, tmp_path):
    samples = sound(4)
    swapped = samples[[0, 2, 1, 3]]
    files = [write_wav(tmp_path / "a.wav", samples), write_wav(tmp_path / "b.wav", swapped)]
    _, rows = embed(model, files, tmp_path / "out.npz", modalities=["audio"])
    for row, heard in zip(rows["audio"], (samples, swapped), strict=True):
        np.testing.assert_allclose(row, model.encode_audio(heard, RATE_HZ).numpy(), atol=1e-5)
    assert rows["audio"][0] @ rows["audio"][1] < 1 - 1e-6
    assert rows["audio"].shape == (2, 256)  # no heads: the tower's features, of unit length
    np.testing.assert_allclose(np.linalg.norm(rows["audio"], axis=1), 1, atol=1e-5)


def test_other_numbers_of_channels_are_refused_by_name(model, tmp_path):
    good = write_wav(tmp_path / "good.wav", sound(4))
    names = {1: "mono", 2: "stereo", 6: "of 6 channels"}
    bad = [write_wav(tmp_path / f"{channels}.wav", sound(channels)) for channels in names]
    report, rows = embed(model, [good, *bad], tmp_path / "out.npz", modalities=["audio"])
    assert len(rows["audio"]) == 1
    assert [one["reason"] for one in report.failed] == ["channels"] * 3
    for one, name in zip(report.failed, names.values(), strict=True):
        assert f"its sound is {name}, the model hears 4" in one["detail"]


def test_the_picture_of_such_a_file_can_still_be_embedded(model, tmp_path):
    movie = write_movie(tmp_path / "stereo.mp4", sound(2))
    _, rows = embed(model, [movie], tmp_path / "out.npz", modalities=["video"])
    assert rows["video"].shape == (1, 256)


def test_packed_four_channels_are_heard_as_the_file_is(model, tmp_path):
    (folder := tmp_path / "in").mkdir()
    movie = write_movie(folder / "clip.mkv", sound(4), codec="flac", layout="quad")
    packing = BuildOptions(clip_s=1.0, short_side_px=72, audio_rate_hz=RATE_HZ, audio_channels="all")
    build(list_sources(tmp_path / "in"), tmp_path / "shards", packing)
    _, packed = embed(model, [tmp_path / "shards"], tmp_path / "packed.npz")
    _, direct = embed(model, [movie], tmp_path / "direct.npz")
    assert packed["has_audio"].all()
    assert (packed["audio"] * direct["audio"]).sum(axis=1) == pytest.approx(1, abs=1e-3)
    others = model.encode_audio(sound(4)[[3, 2, 1, 0]], RATE_HZ).numpy()
    assert (packed["audio"] @ others < 1 - 1e-2).all()
