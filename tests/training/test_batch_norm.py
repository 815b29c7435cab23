"""Batch norm over ranks: equal to plain batch norm of the whole batch, with parts of any size."""

import pytest
import torch
from torch import multiprocessing, nn

from avssl.training.batch_norm import CrossRankBatchNorm, synchronise_batch_norm
from avssl.training.distributed import ProcessGroup

PARTS = {"equal": [3, 3], "ragged": [5, 1], "one empty": [0, 6]}


def make_net():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv3d(3, 4, 3, bias=False), nn.BatchNorm3d(4), nn.ReLU(), nn.Flatten(), nn.LazyLinear(5))
    net.append(nn.BatchNorm1d(5, momentum=None))
    net(torch.randn(6, 3, 3, 4, 5))
    for module in net:
        if isinstance(module, nn.BatchNorm3d | nn.BatchNorm1d):
            module.reset_running_stats()
    return net.double()


def outcome(net, x, weights):
    """Outputs, gradients of input and parameters, running statistics after two passes."""
    for _ in range(2):
        net.zero_grad()
        x = x.detach().requires_grad_()
        y = net(x)
        (y * weights).sum().backward()
    return y.detach(), x.grad, [p.grad for p in net.parameters()], list(net.buffers())


def inputs():
    generator = torch.Generator().manual_seed(1)
    return (
        5 + torch.randn(6, 3, 3, 4, 5, generator=generator, dtype=torch.float64),
        torch.randn(6, 5, generator=generator, dtype=torch.float64),
    )


def work(rank, folder):
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2)
    results = {}
    for name, parts in PARTS.items():
        net = synchronise_batch_norm(make_net(), ProcessGroup())
        x, weights = (value.split(parts)[rank] for value in inputs())
        results[name] = outcome(net, x, weights)
    group = ProcessGroup()
    part = torch.arange(float(2 + rank)) * (rank + 1)
    part.requires_grad_()
    whole = group.gather(part, group.counts(len(part)))
    (whole * torch.arange(5.0) * (rank + 1)).sum().backward()
    results["gather"] = (whole.detach(), part.grad, group.sum(torch.tensor(rank + 1.0)))
    torch.save(results, f"{folder}/{rank}.pt")
    torch.distributed.destroy_process_group()


@pytest.fixture(scope="module")
def both_ranks(tmp_path_factory):
    folder = tmp_path_factory.mktemp("batch_norm")
    multiprocessing.spawn(work, (str(folder),), nprocs=2)
    return [torch.load(folder / f"{rank}.pt") for rank in (0, 1)]


@pytest.mark.parametrize("name", PARTS)
def test_two_ranks_equal_one_process(both_ranks, name):
    y, x_grad, gradients, buffers = outcome(make_net(), *inputs())
    ours = [result[name] for result in both_ranks]
    torch.testing.assert_close(torch.cat([part[0] for part in ours]), y)
    torch.testing.assert_close(torch.cat([part[1] for part in ours]), x_grad)
    torch.testing.assert_close([a + b for a, b in zip(ours[0][2], ours[1][2], strict=True)], gradients)
    for part in ours:
        torch.testing.assert_close(part[3], buffers)


def test_gather_keeps_the_order_and_adds_up_gradients(both_ranks):
    for rank, result in enumerate(both_ranks):
        whole, gradient, total = result["gather"]
        assert whole.tolist() == [0, 1, 0, 2, 4]
        expected = torch.arange(5.0) * 3  # (1 + 2) times the weights
        assert torch.equal(gradient, expected[:2] if rank == 0 else expected[2:])
        assert total == 3


def test_one_process_keeps_its_modules_and_evaluation_is_plain():
    net = make_net()
    assert synchronise_batch_norm(net, ProcessGroup()) is net
    assert not any(isinstance(module, CrossRankBatchNorm) for module in net.modules())
    norm = nn.BatchNorm1d(3)
    norm.running_mean += 1
    ours = CrossRankBatchNorm(3)
    ours.load_state_dict(norm.state_dict())
    x = torch.randn(4, 3)
    assert torch.equal(ours.eval()(x), norm.eval()(x))
