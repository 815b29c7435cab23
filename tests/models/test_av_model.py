"""AVModel: shapes, preprocessing, independence of the batch, layers, and what it refuses."""

import numpy as np
import pytest
import torch
from PIL import Image

from avssl.errors import ModelError, UsageError
from avssl.models.av_model import AVModel, centre_crop, centre_window, resample, resize_short_side
from avssl.models.config import AudioInput, FrontEndConfig, HeadConfig, ModelConfig, TowerConfig
from avssl.models.two_tower import TwoTower

HEAD = HeadConfig(hidden=[32], dim=16)


def clips(*leading: int, frames: int = 8, height: int = 90, width: int = 120) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(*leading, frames, 6, 8, 3, generator=generator).reshape(-1, 6, 8, 3).movedim(-1, 1)
    smooth = torch.nn.functional.interpolate(coarse, size=(height, width), mode="bilinear")
    return (smooth * 255).to(torch.uint8).movedim(1, -1).reshape(*leading, frames, height, width, 3)


def sounds(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0)) * 0.1


@pytest.fixture(scope="module")
def model() -> AVModel:
    torch.manual_seed(0)
    towers = TwoTower(ModelConfig(video=TowerConfig("tiny_video"), audio=TowerConfig("tiny_audio"), head=HEAD))
    towers(video=torch.randn(8, 3, 8, 64, 64), audio=sounds(8, 1, 48000))  # gives batch norm statistics
    return AVModel(towers)


def is_unit(x: torch.Tensor) -> bool:
    return bool(x.isfinite().all()) and torch.allclose(x.norm(dim=-1), torch.ones(x.shape[:-1]), atol=1e-5)


@pytest.mark.parametrize("leading", [(), (1,), (3,), (2, 3)])
def test_leading_axes_are_kept(model, leading):
    video = model.encode_video(clips(*leading))
    audio = model.encode_audio(sounds(*leading, 1, 48000), 24000)
    for vectors in (video, audio):
        assert vectors.shape == (*leading, 16) and vectors.dtype == torch.float32 and is_unit(vectors)


def test_the_result_is_that_of_the_clip_alone_and_repeats(model):
    frames, waves = clips(5), sounds(5, 1, 48000)
    video, audio = model.encode_video(frames), model.encode_audio(waves, 24000)
    assert torch.equal(video, model.encode_video(frames)) and torch.equal(audio, model.encode_audio(waves, 24000))
    for i in range(5):
        torch.testing.assert_close(model.encode_video(frames[i]), video[i], rtol=0, atol=1e-5)
        torch.testing.assert_close(model.encode_audio(waves[i], 24000), audio[i], rtol=0, atol=1e-5)
    torch.testing.assert_close(model.encode_video(frames, batch_size=2), video, rtol=0, atol=1e-5)
    assert (video[0] - video[1]).norm() > 1e-3, "different clips must differ"


def test_arrays_and_tensors_are_alike(model):
    frames, waves = clips(), sounds(48000)
    assert torch.equal(model.encode_video(frames.numpy()), model.encode_video(frames))
    assert torch.equal(model.encode_audio(waves.numpy(), 24000), model.encode_audio(waves[None], 24000))


def test_layers(model):
    layers = model.encode_video(clips(2), layers=["conv3x", "pool", "embedding"])
    assert {name: tuple(value.shape) for name, value in layers.items()} == {
        "conv3x": (2, 64),
        "pool": (2, 256),
        "embedding": (2, 16),
    }
    torch.testing.assert_close(layers["embedding"], model.encode_video(clips(2)), rtol=0, atol=1e-6)
    assert model.layers("audio") == ["conv1", "block1", "block2", "block3", "block4", "pool", "embedding"]
    assert model.encode_audio(sounds(48000), 24000, layers=["block4"])["block4"].shape == (256,)
    with pytest.raises(UsageError, match="did you mean 'conv5x'"):
        model.encode_video(clips(), layers=["conv5"])


def test_other_numbers_of_frames(model):
    assert is_unit(model.encode_video(clips(frames=13)))
    fixed = AVModel(
        TwoTower(
            ModelConfig(video=TowerConfig("tv_mvit_v2_s", kwargs={"frames": 4, "size_px": 64}), head=HEAD),
        )
    )
    fixed.config.video_input.frames, fixed.config.video_input.size_px = 4, 64
    assert is_unit(fixed.encode_video(clips(frames=4)))
    with pytest.raises(UsageError, match=r"exactly 4 frames at 7\.5 fps, got 8"):
        fixed.encode_video(clips())
    with pytest.raises(ModelError, match="no audio tower"):
        fixed.encode_audio(sounds(48000), 24000)


@pytest.mark.parametrize(
    ("frames", "message"),
    [
        (torch.zeros(8, 64, 64, 3), "uint8"),
        (torch.zeros(8, 3, 64, 64, dtype=torch.uint8), r"\[8, 3, 64, 64\]"),
        (torch.zeros(64, 64, 3, dtype=torch.uint8), "T, H, W, 3"),
        (torch.zeros(0, 64, 64, 3, dtype=torch.uint8), "T, H, W, 3"),
        (torch.zeros(0, 8, 64, 64, 3, dtype=torch.uint8), "empty"),
    ],
)
def test_frames_of_a_wrong_shape_or_type_are_refused(model, frames, message):
    with pytest.raises(UsageError, match=message):
        model.encode_video(frames)


@pytest.mark.parametrize(
    ("waveform", "rate_hz", "message"),
    [
        (torch.zeros(48000, dtype=torch.int16), 24000, "floating-point"),
        (torch.zeros(2, 48000), 24000, "1 channel"),
        (torch.zeros(0), 24000, "waveform"),
        (torch.tensor(1.0), 24000, "waveform"),
        (torch.zeros(48000), 0, "resample"),
        (torch.zeros(48000), 44101, "resample"),
    ],
)
def test_waveforms_of_a_wrong_shape_type_or_rate_are_refused(model, waveform, rate_hz, message):
    with pytest.raises(UsageError, match=message):
        model.encode_audio(waveform, rate_hz)


@pytest.mark.parametrize(("height", "width", "side"), [(90, 120, 64), (120, 90, 64), (50, 200, 72), (301, 299, 112)])
def test_resizing_is_that_of_pillow(height, width, side):
    frames = clips(frames=2, height=height, width=width).movedim(-1, 1)
    ours = resize_short_side(frames, side)
    assert min(ours.shape[-2:]) == side
    assert abs(max(ours.shape[-2:]) - side * max(height, width) / min(height, width)) <= 0.5
    for one, source in zip(ours, frames, strict=True):
        image = Image.fromarray(source.movedim(0, -1).numpy()).resize(ours.shape[:-3:-1], Image.Resampling.BILINEAR)
        assert np.abs(one.movedim(0, -1).numpy().astype(int) - np.asarray(image).astype(int)).max() <= 1


def test_crop_and_window_are_central():
    assert torch.equal(centre_crop(torch.arange(25).reshape(5, 5), 3), torch.arange(25).reshape(5, 5)[1:4, 1:4])
    assert torch.equal(centre_window(torch.arange(1.0, 8), 3), torch.tensor([3.0, 4, 5]))
    assert torch.equal(centre_window(torch.ones(2, 3), 6)[1], torch.tensor([0.0, 1, 1, 1, 0, 0]))


@pytest.mark.parametrize("rate_hz", [8000, 16000, 22050, 44100, 48000, 96000])
def test_the_rate_of_the_waveform_hardly_matters(model, rate_hz):
    def chord(rate):
        time_s = torch.arange(2 * rate) / rate
        return sum(torch.sin(2 * torch.pi * hz * time_s) for hz in (220.0, 1000.0, 2750.0)) * 0.2

    resampled = resample(chord(rate_hz), rate_hz, 24000)
    assert resampled.shape == (48000,)
    torch.testing.assert_close(resampled[1000:-1000], chord(24000)[1000:-1000], rtol=0, atol=5e-3)


def test_silence_and_black_are_finite_unit_vectors(model):
    assert is_unit(model.encode_audio(torch.zeros(48000), 24000))
    assert is_unit(model.encode_audio(sounds(1), 24000)), "one sample"
    assert is_unit(model.encode_video(torch.zeros(8, 2, 3, 3, dtype=torch.uint8))), "two by three pixels"


def test_computing_in_bfloat16_keeps_the_direction(model):
    half = AVModel(model.model, dtype="bfloat16")
    for ours, full in (
        (half.encode_video(clips(2)), model.encode_video(clips(2))),
        (half.encode_audio(sounds(2, 1, 48000), 24000), model.encode_audio(sounds(2, 1, 48000), 24000)),
    ):
        assert ours.dtype == torch.float32 and is_unit(ours)
        assert (ours * full).sum(-1).min() > 0.98
    with pytest.raises(UsageError, match="did you mean 'bfloat16'"):
        AVModel(model.model, dtype="bfloat1")


def test_four_channels():
    audio_input = AudioInput(rate_hz=24000, duration_s=1.0, channels=4, front_end=FrontEndConfig("log_mel"))
    ambisonic = AVModel(TwoTower(ModelConfig(audio=TowerConfig("tiny_audio"), audio_input=audio_input, head=HEAD)))
    waveform = sounds(3, 4, 24000)
    assert ambisonic.encode_audio(waveform, 24000).shape == (3, 16)
    waveform[:, 1] = 0
    turned = ambisonic.encode_audio(waveform[:, [0, 3, 2, 1]], 24000)
    assert (turned - ambisonic.encode_audio(waveform, 24000)).norm(dim=-1).min() > 1e-3, "channels are told apart"
    with pytest.raises(UsageError, match="takes 4 channel"):
        ambisonic.encode_audio(sounds(24000), 24000)
    with pytest.raises(ModelError, match="no video tower"):
        ambisonic.encode_video(clips())


@pytest.mark.gpu
def test_the_gpu_gives_what_the_cpu_gives(model):
    frames, waves = clips(3), sounds(3, 1, 44100)
    expected = model.encode_video(frames), model.encode_audio(waves, 44100)
    try:
        on_gpu = AVModel(model.model, device="cuda")
        torch.testing.assert_close(on_gpu.encode_video(frames).cpu(), expected[0], rtol=0, atol=2e-3)
        torch.testing.assert_close(on_gpu.encode_video(frames.cuda()).cpu(), expected[0], rtol=0, atol=5e-3)
        torch.testing.assert_close(on_gpu.encode_audio(waves, 44100).cpu(), expected[1], rtol=0, atol=2e-3)
    finally:
        model.model.cpu()
