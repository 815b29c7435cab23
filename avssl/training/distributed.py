"""The processes of a run: how they are launched, what they exchange, statistics over all of them.

Lightning Fabric launches (by itself, under torchrun, under Slurm) and wraps the task in DDP or FSDP. Every loss here is
scaled so that its *mean over ranks* is the loss of the global batch; averaged gradients are then those of one process.
"""

from __future__ import annotations

import inspect
import math
import os
from collections.abc import Sequence
from typing import Any

import torch
from lightning_fabric import Fabric
from lightning_fabric.strategies import DDPStrategy, ModelParallelStrategy, Strategy
from torch import Tensor, distributed, nn

from avssl.errors import ConfigError
from avssl.training.config import RunConfig


def make_fabric(config: RunConfig) -> Fabric:
    """A launched Fabric. Ranks are those of torchrun or Slurm, otherwise `run.devices` processes are started."""
    if config.device == "cuda" and not torch.cuda.is_available():
        raise ConfigError("run.device is 'cuda', but torch sees no CUDA device; set it to auto or cpu")
    accelerator = "cuda" if config.device != "cpu" and torch.cuda.is_available() else "cpu"
    size, local_size = _external_ranks() or (config.devices, config.devices)
    if accelerator == "cuda" and local_size > torch.cuda.device_count():
        found = torch.cuda.device_count()
        raise ConfigError(f"{local_size} processes were asked for on this machine, but it has {found} CUDA devices")
    fabric = Fabric(
        accelerator=accelerator,
        devices=local_size,
        num_nodes=size // local_size,
        strategy=_strategy(config.strategy, size) if size > 1 else "auto",
    )
    fabric.launch()
    return fabric


def _external_ranks() -> tuple[int, int] | None:
    """(all, on this machine) where torchrun or srun started this process as one of several."""
    if "TORCHELASTIC_RUN_ID" in os.environ:
        return int(os.environ["WORLD_SIZE"]), int(os.environ["LOCAL_WORLD_SIZE"])
    if int(os.environ.get("SLURM_NTASKS", 1)) > 1 and "SLURM_PROCID" in os.environ:
        size = int(os.environ["SLURM_NTASKS"])
        return size, size // int(os.environ.get("SLURM_NNODES", 1))
    return None


def _strategy(name: str, size: int) -> Strategy:
    if name == "fsdp":
        return ModelParallelStrategy(_shard, data_parallel_size=size, tensor_parallel_size=1)
    # The banks are buffers and equal on all ranks by construction; sending them every step would be a waste.
    signature = inspect.signature(nn.parallel.DistributedDataParallel).parameters
    option = "forward_sync_buffers" if "forward_sync_buffers" in signature else "broadcast_buffers"  # torch < 2.13
    options: dict[str, Any] = {option: False}
    return DDPStrategy(gradient_as_bucket_view=True, **options)


def _shard(task: nn.Module, mesh: Any) -> nn.Module:
    from torch.distributed.fsdp import fully_shard

    for parameter in task.parameters():  # it refuses channels-last weights, which some towers come with
        parameter.data = parameter.data.contiguous()
    fully_shard(task, mesh=mesh["data_parallel"])
    return task


class ProcessGroup:
    """The exchange between ranks that tasks use (`avssl.tasks.base.Ranks`); with one process it exchanges nothing."""

    def __init__(self, device: torch.device | str = "cpu"):
        started = distributed.is_available() and distributed.is_initialized()
        self.rank = distributed.get_rank() if started else 0
        self.size = distributed.get_world_size() if started else 1
        self.device = torch.device(device)

    def close(self) -> None:
        if self.size > 1:
            distributed.destroy_process_group()

    def counts(self, n: int) -> list[int]:
        if self.size == 1:
            return [n]
        all_n = torch.zeros(self.size, dtype=torch.int64, device=self.device)
        all_n[self.rank] = n
        distributed.all_reduce(all_n)
        return all_n.tolist()

    def gather(self, part: Tensor, counts: Sequence[int]) -> Tensor:
        if self.size == 1:
            return part
        return _Gather.apply(part, counts, self.rank)

    @torch.no_grad()
    def exchange(self, part: Tensor, counts: Sequence[int]) -> Tensor:
        if self.size == 1:
            return part
        sent = torch.tensor(counts, device=self.device)
        received = torch.empty_like(sent)
        distributed.all_to_all_single(received, sent)
        given = received.tolist()
        arrived = part.new_empty(sum(given), *part.shape[1:])
        # As bytes: every backend can carry them, whatever the type of the part.
        width = part.element_size() * math.prod(part.shape[1:])
        to, of = arrived.view(-1).view(torch.uint8), part.contiguous().view(-1).view(torch.uint8)
        distributed.all_to_all_single(to, of, [n * width for n in given], [n * width for n in counts])
        return arrived

    def sum(self, value: Tensor) -> Tensor:
        value = value.detach()
        if self.size > 1:
            value = value.clone()
            distributed.all_reduce(value)
        return value

    def sum_with_gradient(self, value: Tensor) -> Tensor:
        """`sum` whose backward adds up the gradients of all ranks."""
        return value if self.size == 1 else _Sum.apply(value)


class _Gather(torch.autograd.Function):
    """Concatenate parts of different lengths in rank order; backward sums the ranks' gradients of the own part."""

    @staticmethod
    def forward(ctx: Any, part: Tensor, counts: Sequence[int], rank: int) -> Tensor:
        ctx.counts, ctx.rank = counts, rank
        padded = part.new_zeros(max(counts), *part.shape[1:])
        padded[: len(part)] = part
        parts = [torch.empty_like(padded) for _ in counts]
        distributed.all_gather(parts, padded)
        return torch.cat([received[:n] for received, n in zip(parts, counts, strict=True)])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        gradient = gradients[0].contiguous()
        distributed.all_reduce(gradient)
        first = sum(ctx.counts[: ctx.rank])
        return gradient[first : first + ctx.counts[ctx.rank]], None, None


class _Sum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, value: Tensor) -> Tensor:
        value = value.clone()
        distributed.all_reduce(value)
        return value

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        gradient = gradients[0].clone()
        distributed.all_reduce(gradient)
        return gradient


def full_state(task: nn.Module, optimizer: torch.optim.Optimizer) -> tuple[dict[str, Any], dict[str, Any]]:
    """State dicts of the task and the optimiser as one process would have them, on the CPU; call it on all ranks.

    The optimiser's is keyed by parameter name, so a run may be continued with another number of ranks or strategy.
    """
    from torch.distributed.checkpoint.state_dict import StateDictOptions, get_state_dict

    options = StateDictOptions(full_state_dict=True, cpu_offload=True)
    return get_state_dict(task, optimizer, options=options)


def load_full_state(
    task: nn.Module, optimizer: torch.optim.Optimizer, task_state: dict[str, Any], optimizer_state: dict[str, Any]
) -> None:
    """The inverse of `full_state`; every rank gives the whole state."""
    from torch.distributed.checkpoint.state_dict import StateDictOptions, set_state_dict

    options = StateDictOptions(full_state_dict=True)
    set_state_dict(task, optimizer, model_state_dict=task_state, optim_state_dict=optimizer_state, options=options)
    for parameter, state in optimizer.state.items():  # fused Adam takes for granted that the layouts are the same
        for name, value in state.items():
            if value.shape == parameter.shape and value.stride() != parameter.stride():
                state[name] = torch.empty_like(parameter).copy_(value)
