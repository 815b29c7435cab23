"""A converted random model against the networks and front ends written out from their description, in float64.

The reference knows the published state dict and nothing of this package.
"""

import math

import librosa
import numpy as np
import torch
import torch.nn.functional as F
from published_states import avid_shapes, avsa_shapes, checkpoint, filled_at_random

import avssl
from avssl.published.convert import convert
from avssl.published.layout import Choices

SIDE_PX = 32  # the networks are convolutional: small pictures show all there is to see


def batch_norm(state, name, x):
    shape = [1, -1] + [1] * (x.ndim - 2)
    mean, var, gain, shift = (
        state[f"{name}.{part}"].reshape(shape) for part in ("running_mean", "running_var", "weight", "bias")
    )
    return (x - mean) / (var + 1e-5).sqrt() * gain + shift


def residual_block(state, name, x, stride):
    def space(number, x, stride):
        return F.conv3d(x, state[f"{name}.spt_conv{number}.weight"], stride=(1, stride, stride), padding=(0, 1, 1))

    def time(number, x, stride):
        return F.conv3d(x, state[f"{name}.tmp_conv{number}.weight"], stride=(stride, 1, 1), padding=(1, 0, 0))

    y = batch_norm(state, f"{name}.spt_bn1", space(1, x, stride)).relu()
    y = batch_norm(state, f"{name}.tmp_bn1", time(1, y, stride)).relu()
    y = batch_norm(state, f"{name}.spt_bn2", space(2, y, 1)).relu()
    y = time(2, y, 1)
    shortcut = state.get(f"{name}.res_conv.weight")
    x = x if shortcut is None else F.conv3d(x, shortcut, stride=stride)
    return batch_norm(state, f"{name}.out_bn", y + x).relu()


def video_features(state, x, *, stem_pool):
    x = F.conv3d(x, state["conv1.0.weight"], stride=(1, 2, 2), padding=(1, 3, 3))
    x = batch_norm(state, "conv1.1", x).relu()
    if stem_pool:
        x = F.max_pool3d(x, (1, 3, 3), stride=(1, 2, 2), padding=(0, 1, 1))
    for stage, stride in (("conv2x", 1), ("conv3x", 2), ("conv4x", 2), ("conv5x", 2)):
        x = residual_block(state, f"{stage}.0", x, stride)
        x = residual_block(state, f"{stage}.1", x, 1)
    return x.amax(dim=(2, 3, 4))


def audio_features(state, x, *, block1_stride):
    x = batch_norm(state, "conv1.1", F.conv2d(x, state["conv1.0.weight"], stride=2, padding=3)).relu()
    for block, stride in (("block1", block1_stride), ("block2", 2), ("block3", 2), ("block4", 1)):
        for number, step in ((1, stride), (2, 1)):
            x = F.conv2d(x, state[f"{block}.conv{number}.weight"], stride=step, padding=1)
            x = batch_norm(state, f"{block}.bn{number}", x).relu()
    return x.amax(dim=(2, 3))


def head(state, x):
    for number in (0, 2, 4):
        x = x @ state[f"projection.{number}.weight"].T + state[f"projection.{number}.bias"]
        x = x.relu() if number < 4 else x
    return x


def part(state, prefix):
    return {key.removeprefix(prefix): tensor.double() for key, tensor in state.items() if key.startswith(prefix)}


def power_spectrum(sound, fft, hop, frames):
    """|DFT|^2 [frames, fft // 2 + 1] of Hann-windowed pieces around the multiples of `hop`, by the definition."""
    n = np.arange(fft)
    window = 0.5 - 0.5 * np.cos(2 * np.pi * n / fft)
    transform = np.exp(-2j * np.pi * np.outer(n, np.arange(fft // 2 + 1)) / fft)
    padded = np.pad(sound.astype(np.float64), fft // 2)
    pieces = np.stack([padded[hop * frame : hop * frame + fft] for frame in range(frames)])
    return np.abs((pieces * window) @ transform) ** 2


def decibels(levels, range_db=100.0):
    level_db = 10 * np.log10(np.maximum(levels, 1e-10))
    return np.maximum(level_db, level_db.max() - range_db)


def avid_spectrogram_db(sound):
    power = power_spectrum(sound, 1024, 240, 200)
    pairs = np.stack([(power[:, 2 * k + 1] + power[:, 2 * k + 2]) / 2 for k in range(256)], axis=1)
    return decibels(np.concatenate([power[:, :1], pairs], axis=1))


def avsa_log_mel_db(sound):
    filters = librosa.filters.mel(sr=24000, n_fft=512, n_mels=128, dtype=np.float64)
    return decibels(np.sqrt(power_spectrum(sound, 512, 240, 100)) @ filters.T)


def pictures():
    generator = torch.Generator().manual_seed(3)
    return torch.randint(0, 256, (2, 8, SIDE_PX, SIDE_PX, 3), dtype=torch.uint8, generator=generator)


def normalised(frames):
    mean, std = torch.tensor([0.485, 0.456, 0.406]).double(), torch.tensor([0.229, 0.224, 0.225]).double()
    return ((frames.double() / 255 - mean) / std).movedim(-1, 1)


def assert_same(ours, reference):
    difference = (ours.double() - reference).abs().max() / reference.abs().max()
    assert difference < 1e-5, f"differs by {float(difference):.2e} of the largest value"


def converted(state, folder, statistics):
    torch.save(checkpoint(state), folder / "published.pth.tar")
    np.savez(folder / "stats.npz", **statistics)
    convert(folder / "published.pth.tar", folder / "model", Choices(stats_file=folder / "stats.npz"))
    model = avssl.load(folder / "model")
    model.config.video_input.size_px = model.config.video_input.resize_px = SIDE_PX  # nothing left to cut or resize
    return model


def test_avid(tmp_path):
    state = filled_at_random(avid_shapes())
    generator = np.random.default_rng(0)
    statistics = {"mean": generator.uniform(-54, 0, 257), "std": generator.uniform(17, 22, 257)}
    model = converted(state, tmp_path, statistics)

    frames = pictures()
    found = model.encode_video(frames, layers=["pool", "embedding"])
    expected = video_features(part(state, "video_model."), normalised(frames), stem_pool=True)
    assert_same(found["pool"], expected)
    assert_same(found["embedding"], F.normalize(head(part(state, "video_proj."), expected), dim=-1))

    sound = (generator.standard_normal((2, 1, 48000)) * 0.1).astype(np.float32)
    found = model.encode_audio(sound, 24000, layers=["pool", "embedding"])
    level_db = np.stack([avid_spectrogram_db(clip[0]) for clip in sound])[:, None]
    picture = torch.from_numpy((level_db - statistics["mean"]) / (statistics["std"] + 1e-5))
    expected = audio_features(part(state, "audio_model."), picture, block1_stride=2)
    assert_same(found["pool"], expected)
    assert_same(found["embedding"], F.normalize(head(part(state, "audio_proj."), expected), dim=-1))


def test_avsa(tmp_path):
    state = filled_at_random(avsa_shapes(), seed=1)
    generator = np.random.default_rng(0)
    statistics = {"mean": generator.uniform(-50, -25, 128), "std": generator.uniform(20, 27, 128)}
    model = converted(state, tmp_path, statistics)

    frames = pictures()
    expected = video_features(part(state, "video_model."), normalised(frames), stem_pool=False)
    assert_same(model.encode_video(frames, layers=["pool"])["pool"], expected)
    assert_same(model.encode_video(frames), F.normalize(expected, dim=-1))

    # Four channels of four loudnesses: the floor lies below each one's own maximum, the scale is common to all.
    loudness = np.array([0.2, 0.1, 0.02, 0.004])[:, None]
    sound = (generator.standard_normal((2, 4, 24000)) * loudness).astype(np.float32)
    level_db = np.stack([[avsa_log_mel_db(channel) for channel in clip] for clip in sound])
    picture = torch.from_numpy((level_db - statistics["mean"]) / (statistics["std"] + 1e-5))
    expected = audio_features(part(state, "audio_model."), picture, block1_stride=1)
    assert_same(model.encode_audio(sound, 24000, layers=["pool"])["pool"], expected)
    assert math.isclose(float(model.encode_audio(sound, 24000)[0].norm()), 1, abs_tol=1e-5)
