"""Adapters: nothing at the start, each task alone, gone without a trace."""

import pytest
import torch

from avssl.models.adapters import Adapters, stage_channels
from avssl.models.registry import create_tower

EXAMPLES = {"video": torch.randn(2, 3, 4, 32, 32), "audio": torch.randn(2, 1, 40, 64)}


@pytest.fixture(params=["video", "audio"])
def adapted(request):
    torch.manual_seed(0)
    tower = create_tower(request.param, f"tiny_{request.param}").eval()
    x = EXAMPLES[request.param]
    return tower, x, stage_channels(tower, x[:1])


def moved(adapters):
    for parameter in adapters.parameters():
        torch.nn.init.normal_(parameter, std=0.1)


def test_start_equals_the_base_and_removal_restores_it(adapted):
    tower, x, channels = adapted
    base, keys = tower(x), set(tower.state_dict())
    adapters = Adapters(channels, rank=3)
    with adapters.on(tower):
        torch.testing.assert_close(tower(x), base, atol=1e-5, rtol=0)
        assert set(tower.state_dict()) == keys
    moved(adapters)
    with adapters.on(tower):
        assert (tower(x) - base).abs().max() > 1e-3
    assert torch.equal(tower(x), base)


def test_training_one_task_leaves_the_other_bit_identical(adapted):
    tower, x, channels = adapted
    tower.requires_grad_(False)
    first, second = Adapters(channels, 2), Adapters(channels, 2)
    moved(first), moved(second)
    with first.on(tower):
        before = tower(x)
    optimizer = torch.optim.SGD(second.parameters(), 0.1)
    with second.on(tower):
        tower(x).square().mean().backward()
    optimizer.step()
    with first.on(tower):
        assert torch.equal(tower(x), before)


def test_as_many_parameters_as_said(adapted):
    _, _, channels = adapted
    adapters = Adapters(channels, rank=3)
    assert sum(p.numel() for p in adapters.parameters()) == sum(2 * 3 * count for count in channels.values())
    assert "pool" not in channels


def test_is_the_convolution_with_identity_plus_low_rank():
    adapter = Adapters({"s": 5}, 2)["s"]
    moved(adapter)
    y = torch.randn(2, 5, 3, 4)
    expected = torch.einsum("ij,bjhw->bihw", torch.eye(5) + adapter.up @ adapter.down, y)
    torch.testing.assert_close(adapter(y), expected)
