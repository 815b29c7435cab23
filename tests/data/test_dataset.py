"""What is decoded from real shards is what lies at the times that the batch states."""

import dataclasses

import numpy as np
import pytest
import torch

from avssl.data import transforms
from avssl.data.collate import split_planes
from avssl.data.config import AudioSpec, AugmentConfig, DataConfig, VideoSpec
from avssl.data.dataset import ClipDataset, Request
from avssl.data.order import Entry
from avssl.errors import ConfigError
from avssl.shards import ShardSet

FPS, RATE_HZ = 16, 24000


def grey(frame):
    return 30 + 2 * frame


def decode(folder, rows=None, epoch=0, **options):
    options = {"shards": [str(folder)], "augment": None, "clips": 3, "offset_s": 0.5} | options
    dataset = ClipDataset(ShardSet.open(folder), DataConfig(**options))
    rows = [row for row in range(len(dataset.shards)) if row != 6] if rows is None else rows
    outcome = dataset.__getitems__([Request(Entry(epoch, row, 0)) for row in rows])
    assert outcome.failure is None and not outcome.skipped
    return dataset.shards, outcome.batch


def levels(batch, b, k):
    """Mean grey of the valid part of each frame of a clip."""
    height, width = batch["video_size_px"][b].tolist()
    return batch["video"][b, k, :, :height, :width].float().mean((1, 2, 3)).numpy()


@pytest.mark.parametrize("sampling", ["random", "even"])
def test_frames_and_sound_are_those_of_the_stated_times(shards, sampling):
    video, audio = VideoSpec(frames=4, fps=8, max_aspect=9), AudioSpec(duration_s=0.5)
    shard_set, batch = decode(shards, sampling=sampling, video=video, audio=audio)
    assert batch["video"].dtype == torch.uint8 and batch["audio"].dtype == torch.float32
    assert batch["video"].shape == (9, 3, 4, 86, 200, 3) and batch["audio"].shape == (9, 3, 1, 12000)
    for b, row in enumerate(batch["row"].tolist()):
        record = shard_set.record(row)
        size = batch["video_size_px"][b].tolist()
        assert size == [record["video"]["height_px"], record["video"]["width_px"]]
        for k in range(3):
            video_s, audio_s = batch["time_s"][b, k].tolist()
            first = round((record["start_s"] + video_s) * FPS)
            assert video_s * FPS == pytest.approx(round(video_s * FPS), abs=1e-4)
            assert levels(batch, b, k) == pytest.approx([grey(first + 2 * t) for t in range(4)], abs=2)
            moments = record["start_s"] + audio_s + np.arange(12000) / RATE_HZ
            assert np.allclose(batch["audio"][b, k, 0], moments / 10, atol=1.5 / RATE_HZ / 10 + 1 / 32768)
            assert -0.5 - 1 / FPS < video_s - audio_s < 0.5 + 1 / FPS  # the windows are equally long


def test_padding_is_zero_and_stays_outside(shards):
    _, batch = decode(shards, video=VideoSpec(frames=2, max_aspect=9), audio=None)
    for b in range(len(batch["row"])):
        height, width = batch["video_size_px"][b].tolist()
        video = batch["video"][b]
        assert not video[:, :, height:].any() and not video[:, :, :, width:].any()
        assert (video[:, :, :height, :width] > 20).all()


def test_short_streams_repeat_frames_and_pad_sound(shards):
    shard_set, batch = decode(shards, rows=[5], clips=1, video=VideoSpec(frames=20), audio=AudioSpec())
    stored = shard_set.record(5)["video"]["frames"]  # 12, or one more held where the container rounds up
    expected = [grey(min(t % stored, 11)) for t in range(20)]
    assert levels(batch, 0, 0) == pytest.approx(expected, abs=2)
    assert batch["audio"].shape[-1] == 48000 and batch["time_s"].tolist() == [[[0, 0]]]
    assert batch["audio"][0, 0, 0, 17999] > 0 and not batch["audio"][0, 0, 0, 18000:].any()
    assert batch["audio_mask"].tolist() == [True]


def test_rows_without_sound_are_masked_when_sound_is_optional(shards):
    _, batch = decode(shards, rows=[0, 6], audio=AudioSpec(optional=True))
    assert batch["audio_mask"].tolist() == [True, False]
    assert batch["audio"][0].any() and not batch["audio"][1].any()
    assert torch.isnan(batch["time_s"][1, :, 1]).all() and not torch.isnan(batch["time_s"][1, :, 0]).any()


def test_one_modality_alone(shards):
    _, batch = decode(shards, video=None, audio=AudioSpec(duration_s=0.5))
    assert "video" not in batch and torch.isnan(batch["time_s"][:, :, 0]).all()
    _, batch = decode(shards, audio=None)
    assert "audio" not in batch and "audio_mask" not in batch


def test_planes_are_the_same_pictures_as_rgb(shards):
    options = {"video": VideoSpec(frames=3, max_aspect=9), "audio": None}
    _, rgb = decode(shards, **options)
    _, planes = decode(shards, pixels="yuv420p", **options)
    assert torch.equal(rgb["video_size_px"], planes["video_size_px"])
    assert planes["video"].shape == (9, 3, 3, 86 * 3 // 2, 200)
    converted = transforms.to_rgb(planes["video"].flatten(0, 1)).permute(0, 1, 3, 4, 2).unflatten(0, (9, 3))
    for b, (height, width) in enumerate(rgb["video_size_px"].tolist()):
        difference = (converted - rgb["video"])[b, :, :, :height, :width].abs()
        assert difference.max() <= 2


@pytest.mark.parametrize("pixels", ["rgb24", "yuv420p"])
def test_long_pictures_are_cut_to_their_middle(shards, pixels):
    options = {"rows": [7], "pixels": pixels, "audio": None}
    _, whole = decode(shards, video=VideoSpec(max_aspect=9), **options)
    _, cut = decode(shards, video=VideoSpec(max_aspect=2), **options)
    assert whole["video_size_px"].tolist() == [[48, 200]] and cut["video_size_px"].tolist() == [[48, 96]]
    if pixels == "rgb24":
        assert torch.equal(cut["video"], whole["video"][:, :, :, :, 52:148])
    else:
        for plane, full, step in zip(split_planes(cut["video"]), split_planes(whole["video"]), (1, 2, 2), strict=True):
            assert torch.equal(plane, full[..., 52 // step : 148 // step])


def test_copied_originals_give_sound_from_the_same_file(copied):
    spec = VideoSpec(short_side_px=32)
    _, batch = decode(copied, rows=[0, 1, 4, 5], audio=AudioSpec(duration_s=0.5), video=spec)
    assert batch["video_size_px"].amin(1).tolist() == [32] * 4
    for b in range(4):
        for k in range(3):
            video_s, audio_s = batch["time_s"][b, k].tolist()
            assert levels(batch, b, k)[0] == pytest.approx(grey(round(video_s * FPS)), abs=2)
            assert np.allclose(batch["audio"][b, k, 0, ::1000], (audio_s + np.arange(12) / 24) / 10, atol=2e-4)


def test_a_sample_depends_on_seed_epoch_row_and_draw_only(shards):
    config = DataConfig([str(shards)], augment=AugmentConfig(), video=VideoSpec(), audio=AudioSpec(duration_s=0.5))
    dataset = ClipDataset(ShardSet.open(shards), config)

    def make(*entries):
        return dataset.__getitems__([Request(Entry(*entry)) for entry in entries]).batch

    alone, among = make((1, 3, 0)), make((0, 2, 0), (1, 3, 0), (1, 3, 1), (2, 3, 0))
    for name in ("time_s", "crop_px", "flip", "jitter", "jitter_order", "gain", "audio"):
        assert torch.equal(alone[name][0], among[name][1]), name
    moments = among["time_s"][1:, 0, 0].tolist() + make((1, 2, 0))["time_s"][:, 0, 0].tolist()
    assert len(set(moments)) == 4
    other = ClipDataset(dataset.shards, dataclasses.replace(config, seed=1))
    assert not torch.equal(other.__getitems__([Request(Entry(1, 3, 0))]).batch["jitter"], alone["jitter"])


def test_another_audio_rate_is_an_error_with_its_cure(shards):
    config = DataConfig([str(shards)], audio=AudioSpec(rate_hz=16000))
    outcome = ClipDataset(ShardSet.open(shards), config).__getitems__([Request(Entry(0, 0, 0))])
    assert isinstance(outcome.failure, ConfigError)
    assert "24000 Hz" in str(outcome.failure) and "data.audio.rate_hz" in str(outcome.failure)
