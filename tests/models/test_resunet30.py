"""The separator: the published numbers, the fast form against the plain one, what learns, what is refused."""

import copy

import pytest
import torch
from oracle_rule import oracle, rule_input, rule_weight
from torch import nn

from avssl.errors import ConfigError, UsageError
from avssl.models.resunet30 import ResUNet30, apply_maps
from avssl.models.resunet30_fast import FastResUNet30
from avssl.models.separation_config import SeparatorConfig
from avssl.models.stft import Stft
from avssl.models.winograd import transform_kernel, winograd_conv

NARROW = [4, 6, 8, 8, 10, 10, 10]


def small(condition_dim=5, **settings) -> ResUNet30:
    """A narrow network in which every number matters: no weight, shift or statistic is at its start value."""
    torch.manual_seed(0)
    net = ResUNet30(SeparatorConfig(condition_dim, **{"channels": NARROW, "fft": 256, "hop": 64, **settings}))
    for module in net.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            nn.init.normal_(module.weight, 1, 0.3)
            nn.init.normal_(module.bias, 0, 0.3)
            module.running_mean.normal_(0, 0.3)
            module.running_var.uniform_(0.5, 1.5)
    return net.eval()


def noise(*shape, seed=0):
    return 0.1 * torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def published_weights(net: ResUNet30) -> dict[str, torch.Tensor]:
    """The rule's values for the published keys, in our layout; the linear layers of the condition are stacked."""
    state = {
        key: rule_weight(f"base.{key}", value) for key, value in net.state_dict().items() if not key.startswith("film.")
    }
    shifts = {"encoder": ["conv_block1->beta1", "conv_block1->beta2"]}
    shifts["conv_bl"] = shifts["encoder"]
    shifts["decoder"] = ["beta1", "conv_block2->beta1", "conv_block2->beta2"]
    layers = [
        (f"film.{block}->{path}", width)
        for block, widths in net.film.layout.items()
        for path, width in zip(shifts[block[:7]], widths, strict=True)
    ]
    shapes = {"weight": (net.config.condition_dim,), "bias": ()}
    for part, rest in shapes.items():
        values = [rule_weight(f"{layer}.{part}", torch.empty(width, *rest)) for layer, width in layers]
        state[f"film.linear.{part}"] = torch.cat(values)
    return state


@torch.inference_mode()
def test_both_forms_match_the_published_implementation():
    net = ResUNet30(SeparatorConfig(condition_dim=527)).eval()
    base = sum(p.numel() for name, p in net.named_parameters() if not name.startswith("film."))
    unused_norms = sum(2 * decoder.bn1.num_features for decoder in net.decoders.values())
    assert base + unused_norms == 21_391_813
    unused_rows = sum(decoder.bn1.num_features for decoder in net.decoders.values())
    assert sum(net.film.widths) + unused_rows == 9_856
    net.load_state_dict(published_weights(net))

    mixture, condition = rule_input("input.mixture", (1, 1, 64000), 0.1)[:, 0], rule_input("input.condition", (1, 527))
    published = torch.from_numpy(oracle("uss")["waveform"])[:, 0]
    fast = net(mixture, condition.sigmoid())
    spectrum = net.stft(mixture)
    plain = net.stft.inverse(apply_maps(spectrum, net.maps(spectrum.abs().clamp(min=1e-5), condition.sigmoid())), 64000)
    assert not torch.equal(fast, plain)  # two forms, or the comparison says nothing
    for waveform in (fast, plain):
        assert (waveform - published).abs().max() <= 2e-6
    assert (fast - plain).abs().max() <= 2e-6


class TestFastForm:
    @pytest.mark.parametrize("samples", [64 * 40, 64 * 64 - 1, 64 * 200 + 17])
    @pytest.mark.parametrize("conditions", [1, 3])
    def test_equals_the_plain_form(self, samples, conditions):
        net, mixture, condition = small(), noise(3, samples), noise(conditions, 5) * 10
        with torch.no_grad():
            fast = net(mixture, condition)
        plain = net(mixture, condition)  # with gradients: the plain form
        assert plain.requires_grad and fast.shape == plain.shape == mixture.shape
        torch.testing.assert_close(fast, plain.detach(), rtol=0, atol=1e-6)

    @torch.no_grad()
    def test_equals_the_plain_form_where_convolutions_are_wide_and_maps_are_cut_in_strips(self, monkeypatch):
        monkeypatch.setattr("avssl.models.resunet30_fast._STRIP_BYTES", 1)
        monkeypatch.setattr("avssl.models.resunet30_fast._WIDE", 8)
        monkeypatch.setattr("avssl.models.winograd._TILES_BYTES", 2**14)
        net, condition = small(), noise(1, 5)
        magnitude = noise(2, 75, 129).abs()
        fast = FastResUNet30(net)
        kinds = {block.block.conv1.wide for block in fast.encoders.values()}
        assert kinds == {True, False}
        torch.testing.assert_close(fast.maps(magnitude, condition), net.maps(magnitude, condition), rtol=0, atol=1e-5)

    @torch.no_grad()
    def test_follows_every_change_of_the_weights(self):
        net, mixture, condition = small(), noise(1, 4096), noise(1, 5)
        before = net(mixture, condition)
        for change in (
            lambda: net.decoder_block6.conv_block2.conv2.weight.mul_(0.5),
            lambda: net.encoder_block3.conv_block1.bn2.running_mean.add_(1),
            lambda: net.film.linear.bias.add_(1),
            lambda: net.load_state_dict({key: value * 0.9 for key, value in net.state_dict().items()}),
        ):
            change()
            after = net(mixture, condition)
            assert not torch.equal(after, before)
            with torch.enable_grad():
                torch.testing.assert_close(after, net(mixture, condition).detach(), rtol=0, atol=1e-6)
            before = after
        assert net._fast() is net._fast()  # and is not made anew without one

    @torch.no_grad()
    def test_copies_have_their_own(self):
        net, mixture, condition = small(), noise(1, 4096), noise(1, 5)
        expected = net(mixture, condition)
        twin = copy.deepcopy(net)
        twin.pre_conv.weight.zero_()
        assert not torch.equal(twin(mixture, condition), expected)
        assert torch.equal(net(mixture, condition), expected)


@torch.no_grad()
def test_items_do_not_depend_on_their_batch():
    net, mixture, condition = small(), noise(4, 4096), noise(4, 5)
    together = net(mixture, condition)
    for n in range(4):
        torch.testing.assert_close(net(mixture[n : n + 1], condition[n])[0], together[n], rtol=0, atol=1e-6)


def test_every_parameter_learns_and_the_condition_gets_a_gradient():
    net, condition = small().train(), noise(2, 5).requires_grad_()
    (net(noise(2, 4096), condition) - noise(2, 4096, seed=1)).abs().mean().backward()
    for name, parameter in net.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().max() > 0, name
    assert (condition.grad.abs() > 0).all()


def test_gradients_are_finite_in_silence():
    net = small().train()
    net(torch.zeros(2, 4096), noise(2, 5)).square().mean().backward()
    assert all(parameter.grad.isfinite().all() for parameter in net.parameters())


def test_maps_mask_and_turn_the_spectrum():
    spectrum = torch.complex(noise(1, 3, 9), noise(1, 3, 9, seed=1))
    z0, angle = noise(1, 3, 8) * 10, noise(1, 3, 8, seed=2) * 30
    maps = torch.stack([z0, torch.atanh(0.5 * angle.cos()), torch.atanh(0.5 * angle.sin())], dim=1)
    expected = spectrum[..., :8] * z0.sigmoid() * torch.polar(torch.ones(()), angle)
    got = apply_maps(spectrum, maps)
    torch.testing.assert_close(got[..., :8], expected, rtol=1e-5, atol=1e-6)
    assert (got[..., 8] == 0).all()
    assert (apply_maps(spectrum, torch.zeros(1, 3, 3, 8)) == 0).all()  # no direction: nothing


@pytest.mark.parametrize(("rows", "width", "channels", "out"), [(7, 6, 3, 5), (8, 2, 1, 1), (31, 16, 40, 24)])
@pytest.mark.parametrize("strip_bytes", [1, 2**21])
def test_winograd_is_a_convolution(rows, width, channels, out, strip_bytes, monkeypatch):
    monkeypatch.setattr("avssl.models.winograd._TILES_BYTES", strip_bytes)
    x, weight, bias = noise(rows + 2, width, channels), noise(out, channels, 3, 3), noise(out)
    expected = nn.functional.conv2d(x.double().permute(2, 0, 1)[None], weight.double(), bias.double(), padding=(0, 1))
    got = winograd_conv(x, transform_kernel(weight), bias)
    torch.testing.assert_close(got.double(), expected[0].permute(1, 2, 0), rtol=0, atol=1e-6)


@pytest.mark.parametrize("samples", [64000, 64001, 3000])
def test_the_transform_and_its_inverse_give_the_signal_back(samples):
    stft, waveform = Stft(2048, 320), noise(2, samples)
    spectrum = stft(waveform)
    assert spectrum.shape == (2, 1 + samples // 320, 1025)
    torch.testing.assert_close(stft.inverse(spectrum, samples), waveform, rtol=0, atol=1e-6)
    assert not list(stft.state_dict())


def test_refuses_what_does_not_go_together():
    net = small()
    with pytest.raises(UsageError, match="condition has 7 numbers, this network wants 5"):
        net(noise(2, 4096), noise(2, 7))
    with pytest.raises(UsageError, match="do not go together"):
        net(noise(2, 4096), noise(3, 5))
    with pytest.raises(UsageError, match="too short"):
        net(noise(2, 100), noise(2, 5))
    for wrong in ({"channels": [4, 4]}, {"fft": 200}, {"hop": 200}, {"channels": [0] * 7}):
        with pytest.raises(ConfigError, match="separator"):
            SeparatorConfig(5, **{"fft": 256, "hop": 64, **wrong})
