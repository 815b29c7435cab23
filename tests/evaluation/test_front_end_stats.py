"""Statistics of front ends over shards: against all frames at once, and through everything that reads their file."""

import io
import json

import librosa
import numpy as np
import pytest
import soundfile
import torch
from tiny_media import moving_pictures

from avssl.cli.shards import main
from avssl.errors import AvsslError, BudgetError, ConfigError
from avssl.evaluation.front_end_stats import Moments, measure_front_end
from avssl.media import MediaWriter
from avssl.models.config import AudioInput, FrontEndConfig
from avssl.models.front_ends import create_front_end
from avssl.shards.build import build
from avssl.shards.options import BuildOptions
from avssl.shards.read import ShardSet
from avssl.shards.sources import list_sources

RATE_HZ = 24000


def sound(channels, duration_s, seed):
    """Noise whose colour, loudness and balance differ from clip to clip and change in time."""
    generator = np.random.default_rng(seed)
    white = generator.standard_normal((channels, round(duration_s * RATE_HZ)))
    dark = np.stack([np.convolve(channel, 0.9 ** np.arange(60), mode="same") for channel in white])
    envelope = np.linspace(1, generator.uniform(0.01, 1), white.shape[1])
    gains = generator.uniform(0.01, 0.1, (channels, 1))
    return ((white + dark) * envelope * gains).clip(-1, 1).astype(np.float32)


def write_shards(folder, channels, durations_s):
    (folder / "in").mkdir(parents=True)
    for number, duration_s in enumerate(durations_s):
        with MediaWriter(folder / "in" / f"{number}.mkv") as writer:
            options = {"codec": "flac"} | ({"layout": "quad"} if channels == 4 else {})
            video = writer.add_video((32, 48), 8)
            audio = writer.add_audio(RATE_HZ, channels, **options)
            for picture in moving_pictures(round(8 * duration_s), size_px=(32, 48)):
                video.write(picture)
            audio.write(sound(channels, duration_s, number))
    packing = BuildOptions(
        clip_s=4.0, fps=8, short_side_px=32, audio_rate_hz=RATE_HZ, audio_channels="mono" if channels == 1 else "all"
    )
    build(list_sources(folder / "in"), folder / "shards", packing)
    return folder / "shards"


@pytest.fixture(scope="module")
def mono(tmp_path_factory):
    return write_shards(tmp_path_factory.mktemp("mono"), 1, [4.0, 4.0, 2.0, 4.0, 4.0])


@pytest.fixture(scope="module")
def four(tmp_path_factory):
    return write_shards(tmp_path_factory.mktemp("four"), 4, [2.0, 2.0, 2.0])


def audio_input(name, duration_s, channels, **kwargs):
    return AudioInput(
        rate_hz=RATE_HZ, duration_s=duration_s, channels=channels, front_end=FrontEndConfig(name, kwargs=kwargs)
    )


def heard(folder, row):
    """The packed sound [C, S] of a row, by another decoder."""
    samples, _ = soundfile.read(io.BytesIO(ShardSet.open(folder).read(row, "flac")), dtype="float32", always_2d=True)
    return samples.T


def avsa_log_mel_db(channel):
    """AVSA's picture of 1 s, by librosa."""
    magnitude = librosa.feature.melspectrogram(
        y=channel, sr=RATE_HZ, n_fft=512, hop_length=240, n_mels=128, power=1.0, pad_mode="constant"
    )
    return librosa.power_to_db(magnitude, top_db=100.0).T[:100]


def avid_spectrogram_db(channel):
    """AVID's picture of 2 s, by librosa."""
    power = np.abs(librosa.stft(channel, n_fft=1024, hop_length=240, pad_mode="constant")).T[:200] ** 2
    paired = np.concatenate([power[:, :1], (power[:, 1::2] + power[:, 2::2]) / 2], axis=1)
    return librosa.power_to_db(paired, top_db=100.0)


def windows(samples, length_s, starts_s):
    return [samples[:, round(s * RATE_HZ) :][:, : round(length_s * RATE_HZ)] for s in starts_s]


def test_avsa_log_mel_against_librosa_on_all_frames_at_once(four):
    found = measure_front_end(four, audio_input("log_mel", 1.0, 4))
    clips = [window for row in range(3) for window in windows(heard(four, row), 1.0, [0, 1])]
    frames = np.concatenate([avsa_log_mel_db(channel) for clip in clips for channel in clip]).astype(np.float64)
    assert found.facts["frames"] == len(frames) == 3 * 2 * 4 * 100
    np.testing.assert_allclose(found.mean_db, frames.mean(axis=0), rtol=0, atol=1e-3)
    np.testing.assert_allclose(found.std_db, frames.std(axis=0), rtol=0, atol=1e-3)


def test_avid_spectrogram_against_librosa_and_short_clips_count_as_long_ones(mono):
    found = measure_front_end(mono, audio_input("avid_spectrogram", 2.0, 1))
    clips = [
        window
        for row in range(5)
        for window in windows(heard(mono, row), 2.0, [0, heard(mono, row).shape[1] / RATE_HZ - 2])
    ]
    frames = np.concatenate([avid_spectrogram_db(clip[0]) for clip in clips]).astype(np.float64)
    assert (found.facts["clips"], found.facts["windows"], found.facts["frames"]) == (5, 2, len(frames))
    np.testing.assert_allclose(found.mean_db, frames.mean(axis=0), rtol=0, atol=1e-3)
    np.testing.assert_allclose(found.std_db, frames.std(axis=0), rtol=0, atol=1e-3)


def test_frames_come_out_with_mean_0_and_std_1(mono, tmp_path):
    for suffix in (".npz", ".json"):
        audio = audio_input("log_mel", 2.0, 1, bands=40, exponent=2.0)
        measure_front_end(mono, audio, windows=3).save(tmp_path / f"stats{suffix}")
        audio.front_end.stats_file = str(tmp_path / f"stats{suffix}")
        front_end = create_front_end(audio)
        clips = [
            window
            for row in range(5)
            for window in windows(heard(mono, row), 2.0, np.linspace(0, heard(mono, row).shape[1] / RATE_HZ - 2, 3))
        ]
        picture = front_end(torch.from_numpy(np.stack(clips))).double()
        assert picture.mean(dim=(0, 1, 2)).abs().max() < 1e-4
        assert (picture.std(dim=(0, 1, 2), correction=0) - 1).abs().max() < 1e-4


def test_moments_do_not_lose_digits_far_from_zero():
    generator = torch.Generator().manual_seed(0)
    values = 1e6 + torch.randn(50_000, 3, generator=generator, dtype=torch.float64)
    moments = Moments()
    for piece in values.split([1, 7, 992, 49_000]):
        moments.add(piece)
    np.testing.assert_allclose(moments.mean(), values.numpy().mean(axis=0), rtol=1e-14)
    np.testing.assert_allclose(moments.std(), values.numpy().std(axis=0), rtol=1e-9)


def test_equal_calls_give_equal_bytes_and_the_seed_chooses_the_clips(mono, tmp_path):
    def measured(name, **options):
        measure_front_end(mono, audio_input("log_mel", 1.0, 1), **options).save(tmp_path / name)
        return (tmp_path / name).read_bytes()

    first = measured("a.npz", max_clips=2, seed=1)
    assert measured("b.npz", max_clips=2, seed=1) == first
    others = {measured(f"{seed}.npz", max_clips=2, seed=seed) for seed in range(4)}
    assert len(others) == 4
    counted = []
    measure_front_end(mono, audio_input("log_mel", 1.0, 1), max_clips=2, advance=counted.append)
    assert counted == [1, 1]


def test_what_does_not_fit_is_said(mono, four, tmp_path):
    with pytest.raises(ConfigError, match=r"24000 Hz.*48000"):
        wrong = audio_input("log_mel", 1.0, 1)
        wrong.rate_hz = 48000
        measure_front_end(mono, wrong)
    with pytest.raises(ConfigError, match="did you mean 'log_mel'"):
        measure_front_end(mono, audio_input("log_mell", 1.0, 1))
    with pytest.raises((AvsslError, BudgetError), match=r"it has 4 channels.*is 2"):
        measure_front_end(four, audio_input("log_mel", 1.0, 2))


def test_silence_has_no_statistics(tmp_path):
    (tmp_path / "in").mkdir()
    with MediaWriter(tmp_path / "in" / "silent.wav") as writer:
        writer.add_audio(RATE_HZ, 1).write(np.zeros((1, 2 * RATE_HZ), np.float32))
    build(list_sources(tmp_path / "in"), tmp_path / "shards", BuildOptions(clip_s=2.0, audio_rate_hz=RATE_HZ))
    with pytest.raises(AvsslError, match="feature 0 and 127 more never change in 200 frames"):
        measure_front_end(tmp_path / "shards", audio_input("log_mel", 1.0, 1))


class TestCommand:
    @pytest.fixture
    def info(self, capsys):
        """Runs `avssl-shards info` in this process; (exit code, standard output, standard error)."""

        def call(*arguments):
            with pytest.raises(SystemExit) as ended:
                main(["info", *map(str, arguments)])
            captured = capsys.readouterr()
            return ended.value.code, captured.out, captured.err

        return call

    def test_writes_what_the_library_measures(self, info, four, tmp_path):
        stats = "log_mel,duration_s=1,channels=4,bands=32"
        code, out, err = info(four, "--stats", stats, "-o", tmp_path / "s.npz", "--max-clips", 2, "--seed", 3, "--json")
        assert code == 0, err
        measured = measure_front_end(four, audio_input("log_mel", 1.0, 4, bands=32), max_clips=2, seed=3)
        with np.load(tmp_path / "s.npz", allow_pickle=False) as content:
            np.testing.assert_array_equal(content["mean"], measured.mean_db)
            np.testing.assert_array_equal(content["std"], measured.std_db)
            assert json.loads(str(content["meta"])) == measured.facts
        report = json.loads(out)
        assert report["clips"] == 3 and report["stats"]["clips"] == 2 and report["stats"]["frames"] == 2 * 2 * 4 * 100
        assert "measuring: 2/2" in err

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["--stats", "log_mel"], "belong together"),
            (["--stats", "log_mel,bands", "-o", "x.npz"], "'bands' is no key=value"),
            (["--stats", "log_mel,band=3", "-o", "x.npz"], "did you mean 'bands'"),
            (["--stats", "log_mel,channels=two", "-o", "x.npz"], "--stats.channels: expected integer, got 'two'"),
            (["--stats", "log_mel,windows=0", "-o", "x.npz"], "windows is 0"),
            (["--stats", "log_mel", "-o", "x.npz", "--max-clips", "0"], "--max-clips is 0"),
        ],
    )
    def test_wrong_use_is_one_sentence_and_code_2(self, info, mono, arguments, message):
        code, _, err = info(mono, *arguments)
        assert code == 2 and message in err and err.count("\n") == 1
