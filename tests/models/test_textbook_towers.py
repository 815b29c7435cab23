"""The towers, which are written to be fast, beside the same networks as a textbook has them: values and gradients."""

import pytest
import torch

from avssl.models.config import ModelConfig
from avssl.models.registry import create_tower
from avssl.models.two_tower import TwoTower
from benchmarks.plain_networks import TOWERS, PlainTwoTower

SHAPES = {
    "avid_r2plus1d_18": (3, 3, 8, 64, 64),
    "avid_audio_cnn9": (2, 1, 40, 65),
    "tiny_video": (2, 3, 4, 32, 32),
    "tiny_audio": (2, 1, 40, 32),
}


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("name", SHAPES)
def test_fast_and_textbook_form_agree(name, training):
    torch.manual_seed(0)
    fast = create_tower("video" if len(SHAPES[name]) == 5 else "audio", name).double().train(training)
    plain = TOWERS[name][0]().double().train(training)
    plain.load_state_dict(fast.state_dict())
    x = torch.randn(SHAPES[name], dtype=torch.float64, requires_grad=True)
    weights = torch.randn(len(x), TOWERS[name][1], dtype=torch.float64)
    found, expected = fast(x), plain(x)
    torch.testing.assert_close(found, expected, rtol=1e-7, atol=1e-7)
    gradients = [
        torch.autograd.grad((y * weights).sum(), [x, *module.parameters()])
        for y, module in ((found, fast), (expected, plain))
    ]
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-6, atol=1e-8)
    torch.testing.assert_close(dict(fast.named_buffers()), dict(plain.named_buffers()), rtol=1e-7, atol=1e-7)


@torch.inference_mode()
@pytest.mark.parametrize("front_end", ["log_mel", "avid_spectrogram"])
def test_whole_models_agree_from_pixels_and_waveforms(front_end):
    torch.manual_seed(0)
    audio = ModelConfig.completed({"audio": {"name": "tiny_audio"}, "audio_input": {"front_end": {"name": front_end}}})
    config = ModelConfig.from_dict({"video": {"name": "tiny_video"}, **audio})
    fast = TwoTower(config).eval()
    plain = PlainTwoTower(config).eval()
    plain.load_state_dict(fast.state_dict())
    video, waveform = torch.randn(2, 3, 4, 32, 32), torch.randn(2, 1, 24000) * 0.1
    found = fast(video, waveform)
    for ours, theirs in zip((found["video"], found["audio"]), plain(video, waveform), strict=True):
        torch.testing.assert_close(torch.nn.functional.normalize(ours, dim=1), theirs, rtol=1e-4, atol=1e-5)
