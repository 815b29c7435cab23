"""Moment probing: against a slow reference, and where a mean says nothing."""

import pytest
import torch
import torch.nn.functional as F

from avssl.errors import ConfigError
from avssl.models.classifier_config import MomentConfig
from avssl.models.heads import LinearHead
from avssl.models.moment_head import MomentHead


def head_of(channels=6, classes=3, **settings):
    torch.manual_seed(0)
    config = MomentConfig(**{"width": 32, "parts": 4, **settings})
    return MomentHead(channels, LinearHead(channels, classes, unit=False, dropout=0), classes, config)


@pytest.mark.parametrize("center", ["scalar", "token", "none"])
def test_cross_moments_are_those_of_a_loop(center):
    head = head_of(center=center)
    for norm in head.norms:
        torch.nn.init.normal_(norm.bias)
    tokens = torch.randn(2, 6, 3, 5)
    found = head.cross_moments(tokens)
    for b in range(2):
        rows = [head.project(tokens[b, :, i, j]) for i in range(3) for j in range(5)]
        parts = torch.stack([torch.stack([n(p) for n, p in zip(head.norms, r.chunk(4), strict=True)]) for r in rows])
        if center == "scalar":
            parts = parts - parts.mean()
        if center == "token":
            parts = parts - parts.mean(0)
        for k in range(3):
            expected = sum(torch.outer(token[k], token[k + 1]) for token in parts) / len(parts)
            torch.testing.assert_close(found[b, k], expected / expected.norm(), atol=1e-5, rtol=1e-4)


def test_one_token_and_any_order_of_tokens():
    head = head_of()
    assert head(torch.randn(2, 6, 1), torch.randn(2, 6)).shape == (2, 3)
    tokens, pooled = torch.randn(2, 6, 7), torch.randn(2, 6)
    torch.testing.assert_close(head(tokens[:, :, torch.randperm(7)], pooled), head(tokens, pooled))


def test_classes_of_equal_mean_and_other_covariance():
    """Tokens (a, b) against (a, -b) with means removed exactly: a linear layer on the mean knows nothing."""
    torch.manual_seed(0)
    a = torch.randn(200, 1, 24)
    a = a - a.mean(2, keepdim=True)
    label = torch.arange(200) % 2
    tokens = torch.cat([a, a * (1 - 2 * label)[:, None, None]], 1) + 0.05 * torch.randn(200, 2, 24)
    tokens = tokens - tokens.mean(2, keepdim=True)
    pooled = tokens.mean(2)
    assert pooled.abs().max() < 1e-5
    head = head_of(channels=2, classes=2, center="none")
    optimizer = torch.optim.Adam(head.parameters(), 1e-2)
    for _ in range(60):
        optimizer.zero_grad()
        F.cross_entropy(head(tokens[:100], pooled[:100]), label[:100]).backward()
        optimizer.step()
    assert (head(tokens[100:], pooled[100:]).argmax(1) == label[100:]).float().mean() > 0.9


def test_starts_with_the_answers_of_a_solved_linear_head():
    head, pooled = head_of(), torch.randn(4, 6)
    weight, bias = torch.randn(3, 6), torch.randn(3)
    head.put(weight, bias)
    torch.testing.assert_close(head(torch.randn(4, 6, 5), pooled), pooled @ weight.T + bias)


def test_settings_that_cannot_be():
    with pytest.raises(ConfigError, match="multiple of parts"):
        MomentConfig(width=30, parts=4)
