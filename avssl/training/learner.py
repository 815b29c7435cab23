"""What learns: the task on its device and ranks, with its optimiser."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from avssl import rng
from avssl.data.loader import Loader
from avssl.data.transforms import prepare, to_device
from avssl.models.config import VideoInput
from avssl.models.folder import create_network
from avssl.tasks.base import Batch
from avssl.tasks.registry import task_class
from avssl.training import optim
from avssl.training.batch_norm import synchronise_batch_norm
from avssl.training.config import TrainConfig
from avssl.training.distributed import ProcessGroup, full_state, load_full_state
from avssl.training.phases import Phase


class StepResult(NamedTuple):
    """What one optimiser step came to. `metrics` is None if the step was skipped because of `fault`."""

    metrics: dict[str, float] | None
    clips: int
    fault: str = ""
    """What was not finite."""


class Learner:
    """A task, wrapped for its ranks, and the optimiser of the present phase.

    Args:
        phase: the first phase of the run.
        loader: tells the rows that there are; not read from.
        prepare_task: called with the new task before it is wrapped and sharded, to start it from something.
    """

    def __init__(
        self,
        config: TrainConfig,
        phase: Phase,
        fabric: Fabric,
        ranks: ProcessGroup,
        loader: Loader,
        prepare_task: Callable[[nn.Module], None] = lambda task: None,
    ):
        self.config, self.phase, self.fabric, self.ranks = config, phase, fabric, ranks
        run = config.run
        _seed_everything(rng.step_seed(run.seed, 0))
        model = create_network(config.model)
        model = synchronise_batch_norm(model, ranks) if run.sync_batch_norm else model
        task = task_class(phase.task.name)(
            phase.task,
            model,
            rows=loader.rows_total,
            usable=torch.from_numpy(loader.rows),
            seed=run.seed,
            steps_per_pass=len(loader.rows) / phase.data.batch_size,
            ranks=ranks,
        )
        self._rows = len(loader.rows)
        prepare_task(task.to(fabric.device))
        if run.channels_last:
            to_channels_last(task)
        if run.compile:
            compile_learned(task.model)
        self.task = task.train()
        self.wrapped = fabric.setup_module(task)  # before the optimiser: it may shard the parameters
        self.optimizer: Any = fabric.setup_optimizers(self._new_optimizer())
        self._model_buffers = [buffer for buffer in task.model.buffers() if buffer.numel()]

    def enter(self, phase: Phase) -> None:
        """A later phase begins: its objective on the same model and banks, its optimiser on the same moments."""
        self.phase = phase
        self.task.steps_per_pass = self._rows / phase.data.batch_size
        self.task.enter(phase.task)
        self.task.train()
        optimizer = self._new_optimizer()
        if phase.keep_optimizer:
            optimizer.state.update(self.optimizer.optimizer.state)
        self.optimizer = self.fabric.setup_optimizers(optimizer)

    def take_step(self, batches: list[Batch], *, step: int, step_in_phase: int, rate: float) -> StepResult:
        """One optimiser step, the `step`-th of the run, over these micro-batches. All ranks call alike.

        step_in_phase: steps of the phase before this one. rate: the learning rate.
        """
        accumulate = len(batches)
        _seed_everything(rng.step_seed(self.config.run.seed, step) + self.ranks.rank)
        self.task.before_step(step_in_phase, self.ranks)
        sizes = self.ranks.sum(torch.tensor([float(len(b["row"])) for b in batches], device=self.fabric.device))
        shares = (sizes / sizes.sum()).tolist()
        clips = int(sizes.sum()) * self.config.data.clips
        before = [buffer.clone() for buffer in self._model_buffers]

        metrics: dict[str, float] = {}
        memories = []
        for number, (batch, share) in enumerate(zip(batches, shares, strict=True)):
            with self.fabric.no_backward_sync(self.wrapped, enabled=number < accumulate - 1):
                output = self.forward(batch, rng.step_seed(self.config.run.seed, step * accumulate + number))
                values = torch.stack(list(output["metrics"].values())).tolist()  # the one wait for the device
                found = dict(zip(output["metrics"], values, strict=True))
                for name, value in found.items():
                    metrics[name] = metrics.get(name, 0.0) + share * value
                if not np.isfinite(found["loss"]):
                    return self._skip(before, clips, "loss")
                self.fabric.backward(output["loss"] * share)
            memories.append(output["memory"])

        metrics["grad_norm"] = self._clip_gradient()
        if not np.isfinite(metrics["grad_norm"]):
            return self._skip(before, clips, "gradient")
        optim.set_learning_rate(self.optimizer, rate)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.task.after_step(memories, self.ranks)
        return StepResult(metrics, clips)

    def forward(self, batch: Batch, seed: int) -> Any:
        """The task's output for a batch as the loader hands it out."""
        device, bf16 = self.fabric.device, self.config.run.precision == "bf16"
        picture = cast(VideoInput, getattr(self.config.model, "video_input", None))  # None: no batch has pictures
        data = self.phase.data
        prepared = prepare(to_device(batch, device), picture, data.views, data.hearing)
        # Not Fabric's own bf16: it would cast the waveforms too, before the spectrogram.
        with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            return self.wrapped(prepared, ranks=self.ranks, seed=seed)

    def state(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """State dicts of task and optimiser as one process would have them; every rank calls."""
        return full_state(self.task, self.optimizer.optimizer)

    def load_state(self, task_state: dict[str, Any], optimizer_state: dict[str, Any]) -> None:
        """The inverse of `state`, in the same phase."""
        load_full_state(self.task, self.optimizer.optimizer, task_state, optimizer_state)

    def whole_model(self, task_state: dict[str, Any]) -> nn.Module:
        """The model with all its parameters here, also where ranks hold shards of them."""
        if self.ranks.size == 1 or self.config.run.strategy != "fsdp":
            return self.task.model
        model = create_network(self.config.model.without_files())
        prefix = "model."
        model.load_state_dict({k.removeprefix(prefix): v for k, v in task_state.items() if k.startswith(prefix)})
        return model

    def _new_optimizer(self) -> torch.optim.Optimizer:
        return optim.make_optimizer((p for p in self.task.parameters() if p.requires_grad), self.phase.optim)

    def _clip_gradient(self) -> float:
        """The norm of the whole gradient before it was clipped (if it is)."""
        limit = self.phase.optim.clip_norm or float("inf")
        norm = self.fabric.clip_gradients(self.wrapped, self.optimizer, max_norm=limit, error_if_nonfinite=False)
        assert norm is not None
        return norm.item()

    def _skip(self, before: list[Tensor], clips: int, fault: str) -> StepResult:
        """Undo what the forward pass left behind. All ranks come here together: what they looked at is global."""
        self.optimizer.zero_grad(set_to_none=True)
        for buffer, value in zip(self._model_buffers, before, strict=True):
            buffer.copy_(value)
        return StepResult(None, clips, fault)


def to_channels_last(module: nn.Module) -> None:
    """Store the weights of 2D and 3D convolutions channels-last; activations follow them."""
    for parameter in module.parameters():
        if parameter.dim() == 4:
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
        elif parameter.dim() == 5:
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last_3d)


def compile_learned(model: nn.Module) -> None:
    """torch.compile each part that has parameters (not the front end: its complex numbers do not compile well)."""
    for part in model.children():
        if next(part.parameters(), None) is not None:
            part.compile()


def _seed_everything(seed: int) -> None:
    """Every draw of a step depends on the step alone: no generator state has to be saved to resume exactly."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed % 2**63)
