"""The taggers: published numbers, sizes, the grid of decisions, training noise, what is refused."""

import dataclasses

import pytest
import torch
from oracle_rule import assert_near, oracle, rule_input, rule_weight

from avssl.errors import ConfigError, UsageError
from avssl.models.cnn14 import Cnn14, Cnn14DecisionLevelMax, create_tagger
from avssl.models.separation_config import TaggerConfig
from avssl.models.spec_augment import spec_augment

SMALL = TaggerConfig(classes=6, channels=[4, 6, 8], rate_hz=16000, fft=256, hop=80, bands=32, high_hz=7000)


def small(decision="clip"):
    torch.manual_seed(0)
    return create_tagger(dataclasses.replace(SMALL, decision=decision)).eval()


def noise(*shape):
    return 0.1 * torch.randn(shape, generator=torch.Generator().manual_seed(0))


@torch.inference_mode()
def test_both_kinds_match_the_published_implementation():
    published = oracle("panns")
    tagger, framewise = Cnn14(TaggerConfig()), Cnn14DecisionLevelMax(TaggerConfig(decision="frame"))
    assert sum(p.numel() for p in tagger.parameters()) == 80_753_615
    state = {key: rule_weight(key, value) for key, value in tagger.state_dict().items()}
    derived = 3  # two transform kernels and the mel filters are the only other entries of the published layout
    assert len(state) + derived == published["keys"]
    stored = 2 * 513 * 1024 + 513 * 64
    assert sum(value.numel() for value in state.values()) + stored == 81_853_340
    for net in (tagger, framewise):
        net.load_state_dict(state, assign=True)
        net.eval()

    tags = tagger(rule_input("input.waveform", (1, 64000), 0.1))
    assert_near(tags.probabilities, published["clipwise"])
    assert_near(tags.embedding, published["embedding"])
    tags = framewise(rule_input("input.waveform10", (1, 320000), 0.1))
    assert tags.frame_logits.shape == (1, 1001, 527)
    assert_near(tags.probabilities, published["sed_clipwise"])
    assert_near(tags.frame_probabilities[:, ::32], published["sed_framewise_every_32"])


@torch.no_grad()
def test_the_frame_kind_decides_in_steps_and_takes_the_largest():
    net = small("frame")
    tags = net(noise(2, 80 * 21 + 5))  # 22 frames: five steps of four, two frames repeat the last
    frames = tags.frame_logits
    assert frames.shape == (2, 22, 6)
    steps = frames[:, ::4][:, :5]
    torch.testing.assert_close(frames[:, :20], steps.repeat_interleave(4, dim=1))
    torch.testing.assert_close(frames[:, 20:], steps[:, -1:].expand(-1, 2, -1))
    torch.testing.assert_close(tags.logits, frames.amax(dim=1))
    assert small("clip")(noise(2, 8000)).frame_probabilities is None


@torch.no_grad()
def test_the_frame_kind_says_when():
    net = small("frame")
    waveform = torch.zeros(1, 16000)
    waveform[:, 8000:9600] = noise(1, 1600)
    change = (net(waveform).frame_logits - net(torch.zeros(1, 16000)).frame_logits).abs().amax(dim=2)[0]
    loud = change > 0.1 * change.max()
    assert loud[100:120].all() and not loud[:70].any() and not loud[150:].any()


@torch.no_grad()
@pytest.mark.parametrize("decision", ["clip", "frame"])
def test_items_do_not_depend_on_their_batch(decision):
    net, waveform = small(decision), noise(3, 8000)
    torch.testing.assert_close(net(waveform).logits[1:2], net(waveform[1:2]).logits, rtol=0, atol=1e-5)


@pytest.mark.parametrize("decision", ["clip", "frame"])
def test_every_parameter_learns(decision):
    net = small(decision).train()
    torch.nn.functional.binary_cross_entropy_with_logits(net(noise(4, 8000)).logits, torch.ones(4, 6)).backward()
    for name, parameter in net.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all() and parameter.grad.any(), name


def test_training_noise_comes_from_torchs_generator_and_only_in_training():
    net, waveform = small(), noise(2, 8000)
    assert torch.equal(net(waveform).logits, net(waveform).logits)
    net.train()
    drawn = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        drawn.append(net(waveform).logits)
    assert torch.equal(drawn[0], drawn[1]) and not torch.equal(drawn[0], drawn[2])


def test_stripes_are_blank_bounded_and_independent_across_samples():
    torch.manual_seed(0)
    x = torch.ones(1000, 200, 64)
    blank = spec_augment(x) == 0
    rows, bands = blank.all(dim=2), blank.all(dim=1)
    assert torch.equal(blank, rows[:, :, None] | bands[:, None, :])  # stripes and nothing else
    assert rows.sum(1).max() <= 2 * 63 and bands.sum(1).max() <= 2 * 7
    assert rows.any(0).all() and bands.any(0).all()  # every place is reached
    assert rows.sum(1).float().std() > 5
    short = spec_augment(torch.ones(50, 10, 4))
    assert short.shape == (50, 10, 4)
    assert torch.equal(x, torch.ones_like(x))


def test_refuses_what_cannot_be():
    with pytest.raises(UsageError, match="less than one time step; pad to 240"):
        small()(noise(1, 200))
    for wrong in ({"channels": []}, {"bands": 2}, {"low_hz": 9000.0}, {"classes": 0}):
        with pytest.raises(ConfigError, match="tagger"):
            dataclasses.replace(SMALL, **wrong)


def test_dropout_can_be_less_than_published(monkeypatch):
    net, waveform = create_tagger(dataclasses.replace(SMALL, dropout=0.0)).train(), noise(2, 8000)
    monkeypatch.setattr("avssl.models.cnn14.spec_augment", lambda x, **_: x)
    assert torch.equal(net(waveform).logits, net(waveform).logits)  # statistics of the batch, and nothing random
    with pytest.raises(ConfigError, match="dropout"):
        dataclasses.replace(SMALL, dropout=1.5)


def test_stripes_are_as_wide_as_published_in_ten_seconds_and_narrower_in_shorter_clips(monkeypatch):
    widths = []
    monkeypatch.setattr("avssl.models.cnn14.spec_augment", lambda x, time_width: widths.append(time_width) or x)
    net = small().train()
    for frames in (1001, 200, 12):
        net(noise(1, 80 * (frames - 1)))
    assert widths == [64, 13, 1]
