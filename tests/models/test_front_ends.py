"""Spectrograms against the published numbers, librosa and torchaudio; statistics; hostile input."""

import json

import librosa
import numpy as np
import pytest
import torch
from oracle_rule import oracle, rule_input

from avssl import compat
from avssl.errors import ConfigError, UsageError
from avssl.models.config import AudioInput, FrontEndConfig
from avssl.models.front_ends import BEAMS, AvidSpectrogram, LogMel, create_front_end, mel_filters
from avssl.spatial.ambisonics import encode
from avssl.spatial.directions import direction


def audio_input(name="log_mel", **config) -> AudioInput:
    return AudioInput(rate_hz=24000, duration_s=1.0, channels=1, front_end=FrontEndConfig(name, **config))


def noise(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0)) * 0.1


def test_avid_spectrogram_matches_the_published_implementation():
    ours = AvidSpectrogram(24000).decibels(rule_input("input.audio2s", (1, 48000), 0.1)[None])[0]
    published = oracle("front_ends")["avid_spectrogram_db"]
    assert ours.shape == published.shape == (1, 200, 257)
    np.testing.assert_allclose(ours.numpy(), published, rtol=0, atol=2e-3)


def test_avsa_log_mel_matches_the_published_implementation():
    ours = LogMel(24000).decibels(rule_input("input.ambix1s", (4, 24000), 0.1)[None])[0]
    published = oracle("front_ends")["avsa_logmel_db"]
    assert ours.shape == published.shape == (4, 100, 128)
    np.testing.assert_allclose(ours.numpy(), published, rtol=0, atol=2e-3)


@pytest.mark.parametrize(
    ("rate_hz", "fft", "bands", "low_hz", "high_hz"),
    [
        (24000, 512, 128, 0, 12000),
        (24000, 1024, 64, 0, 12000),
        (16000, 400, 40, 60, 7600),
        (48000, 2048, 80, 1500, 2e4),
    ],
)
def test_mel_filters_are_librosas(rate_hz, fft, bands, low_hz, high_hz):
    theirs = librosa.filters.mel(sr=rate_hz, n_fft=fft, n_mels=bands, fmin=low_hz, fmax=high_hz, dtype=np.float64)
    np.testing.assert_allclose(mel_filters(rate_hz, fft, bands, low_hz, high_hz), theirs.T, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("exponent", [1.0, 2.0])
def test_log_mel_matches_librosa_and_torchaudio(exponent):
    rate_hz, fft, hop, bands = 16000, 1024, 320, 64
    waveform = noise(2, 3, rate_hz)
    front_end = LogMel(rate_hz, fft=fft, hop=hop, bands=bands, exponent=exponent, range_db=80.0)
    ours = front_end.decibels(waveform)

    theirs = librosa.feature.melspectrogram(
        y=waveform.numpy(), sr=rate_hz, n_fft=fft, hop_length=hop, n_mels=bands, power=exponent, pad_mode="constant"
    )
    theirs = np.stack([[librosa.power_to_db(channel, top_db=80.0) for channel in clip] for clip in theirs])
    np.testing.assert_allclose(ours.numpy(), theirs.swapaxes(-1, -2)[..., : rate_hz // hop, :], rtol=0, atol=2e-3)

    mel = compat.torchaudio().transforms.MelSpectrogram(
        rate_hz,
        n_fft=fft,
        hop_length=hop,
        n_mels=bands,
        power=exponent,
        norm="slaney",
        mel_scale="slaney",
        pad_mode="constant",
    )
    expected = 10 * mel(waveform).clamp(min=1e-10).log10().transpose(-1, -2)[..., : rate_hz // hop, :]
    torch.testing.assert_close(ours, expected, rtol=0, atol=2e-3)


def test_a_tone_lights_the_band_it_lies_in():
    front_end = LogMel(24000, fft=1024, bands=64)
    time_s = torch.arange(24000) / 24000
    centres_hz = librosa.mel_frequencies(n_mels=66, fmin=0, fmax=12000)[1:-1]
    for band in (10, 30, 60):
        tone = torch.sin(2 * torch.pi * centres_hz[band] * time_s)
        assert front_end.decibels(tone[None, None])[0, 0, 50].argmax() == band


@pytest.mark.parametrize("front_end", [AvidSpectrogram(24000), LogMel(24000)], ids=["avid", "log_mel"])
class TestEveryFrontEnd:
    def test_one_frame_a_hop_for_any_length(self, front_end):
        for samples in (240, 24000, 48017):
            picture = front_end(noise(1, 2, samples))
            assert picture.shape == (1, 2, samples // 240, front_end.features)
        with pytest.raises(UsageError, match="240"):
            front_end(noise(1, 2, 239))

    def test_silence_and_extremes_are_finite(self, front_end):
        assert (front_end.decibels(torch.zeros(1, 1, 4800)) == -100).all()
        for waveform in (torch.zeros(1, 1, 4800), torch.ones(1, 1, 4800), 1e4 * noise(1, 1, 4800)):
            assert front_end(waveform).isfinite().all()

    def test_computes_in_float32_under_autocast(self, front_end):
        waveform = noise(2, 1, 4800)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            picture = front_end(waveform)
        assert picture.dtype == torch.float32
        torch.testing.assert_close(picture, front_end(waveform), rtol=0, atol=0)

    def test_items_do_not_depend_on_their_batch(self, front_end):
        waveform = noise(5, 2, 4800)
        torch.testing.assert_close(front_end(waveform)[3:4], front_end(waveform[3:4]), rtol=0, atol=1e-4)


@pytest.mark.parametrize("kind", [AvidSpectrogram, LogMel])
def test_the_range_is_that_of_each_channel(kind):
    loud = torch.cat([noise(1, 1, 4800), torch.zeros(1, 1, 4800)], dim=-1)
    both = kind(24000, range_db=20.0).decibels(torch.cat([loud, 0.1 * loud], dim=1))
    loudest = both.amax(dim=(2, 3))
    torch.testing.assert_close(loudest - both.amin(dim=(2, 3)), torch.full((1, 2), 20.0))
    assert loudest[0, 0] - loudest[0, 1] == pytest.approx(20 if kind is AvidSpectrogram else 10, abs=1e-3)


@pytest.mark.parametrize("suffix", [".npz", ".json"])
def test_statistics_come_from_a_file_and_travel_with_the_weights(tmp_path, suffix):
    mean, std = np.linspace(-50, -20, 128), np.linspace(10, 20, 128)
    path = tmp_path / f"stats{suffix}"
    if suffix == ".npz":
        np.savez(path, mean=mean, std=std)
    else:
        path.write_text(json.dumps({"mean": mean.tolist(), "std": std.tolist()}))
    front_end = create_front_end(audio_input(stats_file=str(path)))
    waveform = noise(1, 1, 24000)
    expected = (front_end.decibels(waveform).numpy() - mean) / (std + 1e-5)
    np.testing.assert_allclose(front_end(waveform).numpy(), expected, rtol=1e-4, atol=1e-4)

    copy = create_front_end(audio_input())
    assert not torch.equal(copy(waveform), front_end(waveform))
    copy.load_state_dict(front_end.state_dict())
    torch.testing.assert_close(copy(waveform), front_end(waveform), rtol=0, atol=0)


def test_wrong_statistics_are_refused(tmp_path):
    cases = {
        "short.json": ({"mean": [0.0] * 5, "std": [1.0] * 5}, "128 of them"),
        "zero.json": ({"mean": 0.0, "std": 0.0}, "positive"),
        "nan.json": ({"mean": float("nan"), "std": 1.0}, "finite"),
        "keys.json": ({"mu": 0.0}, "`mean` and `std`"),
    }
    for name, (content, message) in cases.items():
        (tmp_path / name).write_text(json.dumps(content))
        with pytest.raises(ConfigError, match=message):
            create_front_end(audio_input(stats_file=str(tmp_path / name)))
    with pytest.raises(ConfigError, match=r"gone\.npz"):
        create_front_end(audio_input(stats_file=str(tmp_path / "gone.npz")))


def test_pickled_statistics_are_not_loaded(tmp_path):
    class Bomb:
        def __reduce__(self):
            return (pytest.fail, ("unpickled",))

    np.savez(tmp_path / "bomb.npz", mean=np.array([Bomb()], dtype=object), std=np.ones(1))
    with pytest.raises(ConfigError, match="cannot be read"):
        create_front_end(audio_input(stats_file=str(tmp_path / "bomb.npz")))


def test_unknown_names_point_to_the_nearest():
    with pytest.raises(ConfigError, match="log_mel"):
        create_front_end(audio_input("log_mell"))
    with pytest.raises(ConfigError, match="bands"):
        create_front_end(audio_input(kwargs={"band": 64}))


def test_beams_tell_a_direction_from_its_opposite_and_a_mirrored_scene_swaps_two():
    config = AudioInput(24000, 1.0, 4, FrontEndConfig("beam_mel"))
    beams, plain = create_front_end(config), LogMel(24000)
    mono, here = noise(24000), direction(torch.tensor(40.0), torch.tensor(25.0))
    front, back, mirrored = (encode(mono, place)[None] for place in (here, -here, here * torch.tensor([1.0, -1, 1])))
    torch.testing.assert_close(plain(front), plain(back))
    assert (beams(front) - beams(back)).abs().mean() > 0.1
    torch.testing.assert_close(beams(front), beams(mirrored)[:, [0, 1, 3, 2]], atol=1e-3, rtol=0)
    gains = 10 ** ((beams.decibels(front) - plain.decibels(mono[None, None])) / 10)  # of magnitudes
    torch.testing.assert_close(gains.median(-1)[0].median(-1)[0][0], 1 + BEAMS @ here, atol=1e-3, rtol=0)
    with pytest.raises(UsageError, match="four channels"):
        beams(front[:, :2])
