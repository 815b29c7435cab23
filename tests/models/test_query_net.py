"""Queries: what each kind is, what learns, and how examples are averaged."""

import pytest
import torch

from avssl.errors import ConfigError, UsageError
from avssl.models.cnn14 import Cnn14, Tags
from avssl.models.query_net import QueryNet, keep_classes, mean_query, one_hot
from avssl.models.resunet30 import ResUNet30
from avssl.models.separation_config import QueryConfig, SeparatorConfig, TaggerConfig

TAGS = Tags(torch.tensor([[0.0, 2.0, -1.0]]), torch.tensor([[1.0, 0.0, 3.0, 2.0]]))


@pytest.mark.parametrize(
    ("kind", "expected"), [("soft", TAGS.logits.sigmoid()), ("embedding", TAGS.embedding), ("shortcut", TAGS.embedding)]
)
def test_frozen_kinds_pass_on_what_the_tagger_says(kind, expected):
    net = QueryNet(QueryConfig(kind, expected.shape[1])).eval()
    assert torch.equal(net(net.features(TAGS)), expected)


def test_adaptive_is_the_two_layers_of_the_published_code():
    net = QueryNet(QueryConfig("adaptive", 4, hidden=7, out=5)).eval()
    first, second = net.adapter[0], net.adapter[3]
    leaky = lambda x: torch.where(x > 0, x, 0.01 * x)  # noqa: E731
    hidden = leaky(TAGS.embedding @ first.weight.T + first.bias)
    expected = leaky(hidden @ second.weight.T + second.bias)
    torch.testing.assert_close(net(net.features(TAGS)), expected)
    assert expected.shape == (1, net.config.condition_dim)


@pytest.mark.parametrize("kind", ["adaptive", "shortcut"])
def test_the_trained_kinds_learn_through_the_separator_and_the_tagger_stays(kind):
    torch.manual_seed(0)
    tagger = Cnn14(TaggerConfig(classes=3, channels=[4, 8], fft=256, hop=64, bands=16)).eval()
    query = QueryNet(QueryConfig(kind, 8, hidden=16))
    separator = ResUNet30(SeparatorConfig(8, channels=[2] * 7, fft=128, hop=64))
    sound = 0.1 * torch.randn(2, 4096)
    optimizer = torch.optim.SGD([*query.parameters(), *separator.parameters()], lr=0.1)
    before = [parameter.clone() for parameter in query.parameters()]
    for _ in range(2):  # the shortcut's first layer learns once its last one is no longer zero
        with torch.no_grad():
            features = query.features(tagger(sound))
        optimizer.zero_grad()
        (separator(sound, query(features)) - sound.roll(1)).abs().mean().backward()
        optimizer.step()
    assert all(not torch.equal(a, b) for a, b in zip(before, query.parameters(), strict=True))
    assert all(parameter.grad is None for parameter in tagger.parameters())


def test_one_hot_and_subsets_of_classes():
    assert torch.equal(one_hot([2, 0], 3), torch.tensor([[0.0, 0, 1], [1, 0, 0]]))
    probabilities = torch.tensor([[0.1, 0.2, 0.3], [0.4, 0.5, 0.6]])
    assert torch.equal(keep_classes(probabilities, {0, 2}), torch.tensor([[0.1, 0, 0.3], [0.4, 0, 0.6]]))
    assert torch.equal(keep_classes(probabilities, set()), torch.zeros(2, 3))
    with pytest.raises(UsageError, match="no class 3 among 3"):
        one_hot([3], 3)


def test_a_long_example_weighs_no_more_than_a_short_one():
    long, short = torch.ones(9, 2), torch.zeros(1, 2)
    assert torch.equal(mean_query([long, short]), torch.tensor([0.5, 0.5]))
    for nothing in ([], [long, torch.empty(0, 2)]):
        with pytest.raises(UsageError, match="at least one sound"):
            mean_query(nothing)


def test_refuses_what_does_not_fit():
    with pytest.raises(UsageError, match="5 features were given, this 'soft' query takes 3"):
        QueryNet(QueryConfig("soft", 3))(torch.zeros(1, 5))
    with pytest.raises(UsageError, match="made from a class"):
        QueryNet(QueryConfig("one_hot", 3)).features(TAGS)
    with pytest.raises(ConfigError, match=r"query\.out"):
        QueryConfig("soft", 3, out=4)
