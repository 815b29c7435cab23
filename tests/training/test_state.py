"""The state that a checkpoint holds does not depend on how weights lie in memory."""

import pytest
import torch
from torch import nn

from avssl.training.config import OptimConfig
from avssl.training.distributed import full_state, load_full_state
from avssl.training.learner import to_channels_last
from avssl.training.optim import make_optimizer


def make(channels_last):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv3d(3, 4, (2, 5, 5), bias=False), nn.BatchNorm3d(4), nn.ReLU(), nn.Conv3d(4, 2, 1))
    if channels_last:
        to_channels_last(net)
    return net, make_optimizer(net.parameters(), OptimConfig(lr=0.1))


def step(net, optimizer, number):
    x = torch.randn(2, 3, 4, 8, 8, generator=torch.Generator().manual_seed(number))
    optimizer.zero_grad()
    net(x).square().mean().backward()
    optimizer.step()


@pytest.mark.parametrize("first", [False, True])
@pytest.mark.parametrize("then", [False, True])
def test_a_run_continues_in_another_memory_layout(first, then):
    """torch's fused Adam silently computes nonsense where a moment lies otherwise than its parameter."""
    whole, optimizer = make(False)
    for number in range(6):
        step(whole, optimizer, number)

    net, optimizer = make(first)
    for number in range(3):
        step(net, optimizer, number)
    state = full_state(net, optimizer)
    net, optimizer = make(then)
    load_full_state(net, optimizer, *state)
    for number in range(3, 6):
        step(net, optimizer, number)
    torch.testing.assert_close(dict(net.named_parameters()), dict(whole.named_parameters()), rtol=1e-3, atol=1e-4)
