"""Targets from a momentum encoder: the slow copy of the model, and the queue of what it said (He et al. 2020, MoCo)."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from avssl.errors import ConfigError
from avssl.objectives.scores import unit


class MomentumEncoder(nn.Module):
    """A copy of the model whose weights follow: `slow <- momentum * slow + (1 - momentum) * model`.

    Its weights are buffers: no optimiser, no strategy and no compiler knows of them. It computes as the model does
    while training (batch statistics of its own batch); running statistics are those of the model.
    """

    started: Tensor

    def __init__(self, model: nn.Module):
        super().__init__()
        if any(isinstance(parameter, DTensor) for parameter in model.parameters()):
            raise _sharded()
        self.copy = copy.deepcopy(model)
        for module in self.copy.modules():
            for name, parameter in list(module.named_parameters(recurse=False)):
                delattr(module, name)
                module.register_buffer(name, parameter.detach())
        self.register_buffer("started", torch.zeros((), dtype=torch.bool))

    @torch.no_grad()
    def forward(self, video: Tensor, audio: Tensor) -> dict[str, Tensor]:
        """Unit vectors [B, D] of each modality, from what the model is given."""
        return {name: unit(x) for name, x in self.copy(video=video, audio=audio).items()}

    @torch.no_grad()
    def start(self, model: nn.Module) -> None:
        """Equal the model, the first time this is called: it may have got weights since it was copied."""
        if self.started:
            return
        self.follow(model, 0.0)
        self.started.fill_(True)

    @torch.no_grad()
    def follow(self, model: nn.Module, momentum: float) -> None:
        """Move towards the model."""
        slow = dict(self.copy.named_buffers())
        for name, parameter in model.named_parameters():
            if isinstance(parameter, DTensor):
                raise _sharded()
            slow[name].lerp_(parameter, 1 - momentum)
        for name, buffer in model.named_buffers():
            slow[name].copy_(buffer)


class TargetQueue(nn.Module):
    """The last `size` slow embeddings of both modalities with their rows, in a ring; row -1: nothing yet."""

    video: Tensor
    audio: Tensor
    rows: Tensor
    next: Tensor

    def __init__(self, size: int, dim: int):
        super().__init__()
        self.register_buffer("video", torch.zeros(size, dim))
        self.register_buffer("audio", torch.zeros(size, dim))
        self.register_buffer("rows", torch.full((size,), -1, dtype=torch.int64))
        self.register_buffer("next", torch.zeros((), dtype=torch.int64))

    def side(self, name: str) -> Tensor:
        """The embeddings [size, D] of a modality."""
        return self.get_buffer(name)

    @torch.no_grad()
    def push(self, rows: Tensor, video: Tensor, audio: Tensor) -> None:
        """Put rows [G] and unit vectors [G, D] in, in global sample order, over the oldest; the same on all ranks."""
        size = len(self.rows)
        rows, video, audio = rows[-size:], video[-size:], audio[-size:]
        place = (self.next + torch.arange(len(rows), device=rows.device)) % size
        self.rows[place], self.video[place], self.audio[place] = rows, video, audio
        self.next.copy_((self.next + len(rows)) % size)


def _sharded() -> ConfigError:
    return ConfigError(
        "task.targets is 'queue', whose momentum encoder needs whole weights, but run.strategy is 'fsdp'; set"
        " run.strategy to ddp or task.targets to bank"
    )
