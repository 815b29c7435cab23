"""What `avssl-train` is told: one typed tree of the parts' own settings and those of the run. No torch here."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from avssl.data.config import DataConfig
from avssl.errors import ConfigError
from avssl.models.config import ModelConfig
from avssl.tasks.registry import model_config_class, task_config_class
from avssl.training.phases import SECTIONS, Phase, PhaseConfig, check_length, naming, resolve


@dataclass
class OptimConfig:
    """The optimiser (defaults: AVID on Kinetics, methods B.4)."""

    name: Literal["adam", "adamw"] = "adam"
    """`adam` adds weight decay to the gradient, as AVID did; `adamw` decouples it."""
    lr: float = 2e-4
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    weight_decay: float = 1e-5
    amsgrad: bool = False
    """Divide by the largest second moment so far, not by the present one."""
    clip_norm: float | None = None
    """Largest allowed norm of the whole gradient; null: not clipped."""

    def __post_init__(self) -> None:
        if self.lr <= 0 or self.eps <= 0 or self.weight_decay < 0:
            raise ConfigError("optim.lr and optim.eps must be positive, optim.weight_decay not negative")
        if self.clip_norm is not None and self.clip_norm <= 0:
            raise ConfigError(f"optim.clip_norm is {self.clip_norm}, but must be positive or null")


@dataclass
class ScheduleConfig:
    """How the learning rate moves."""

    name: Literal["constant", "cosine"] = "constant"
    """`cosine` falls from the warm-up's end to `final` at the last step."""
    warmup_steps: int = 0
    """Steps over which the rate rises linearly from 0; adds to `warmup_passes`."""
    warmup_passes: float = 0.0
    """The same in passes over the data."""
    warmup: Literal["linear", "decades"] = "linear"
    """How the warm-up rises: `linear`, or as USS did: a thousandth of the rate in its first third, a hundredth in the
    second, a tenth in the last."""
    final: float = 0.0
    """Where `cosine` ends, as a share of `optim.lr`."""

    def __post_init__(self) -> None:
        if self.warmup_steps < 0 or self.warmup_passes < 0 or not 0 <= self.final <= 1:
            raise ConfigError("schedule.warmup_steps and schedule.warmup_passes must not be negative, final in [0, 1]")


@dataclass
class RunConfig:
    """Where, how long and on what."""

    dir: str
    """The run folder. The same command again continues what it holds."""
    steps: int | None = None
    """Optimiser steps in all; give this, `passes`, or `phases` with lengths of their own."""
    passes: float | None = None
    """Passes over the data in all (one pass: as many samples as rows); give this, `steps`, or `phases`."""
    init: str | None = None
    """Start from this model folder, run folder, checkpoint or .safetensors file: from its weights and, where it is of a
    run on the same shards, its memory banks. null: random weights."""
    seed: int = 0
    """Start of the weights and the banks, and the draws of every step."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    devices: int = 1
    """Processes to start on this machine; under torchrun or Slurm their number counts instead."""
    strategy: Literal["ddp", "fsdp"] = "ddp"
    """With several processes: replicate the model, or shard its parameters and optimiser state."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """`bf16`: towers under autocast; parameters, losses and banks stay float32."""
    accumulate: int = 1
    """Split each batch of `data.batch_size` into this many micro-batches, one after the other. With
    `task.targets: batch` the candidates are those of the micro-batch."""
    sync_batch_norm: bool = True
    """Batch statistics over all ranks; otherwise each rank normalises by its own part."""
    channels_last: bool = False
    """Keep the weights of convolutions channels-last. The towers of this project always do; for torchvision's it is
    faster on GPUs with bf16, measure it on a CPU."""
    compile: bool = False
    """torch.compile the towers."""
    deterministic: bool = False
    """Ask torch for reproducible GPU kernels (slower). A CPU run is reproducible without it."""
    log_every: int = 20
    """Steps a line of metrics.jsonl, TensorBoard and the log stands for."""
    log_rows: bool = False
    """Also write rows.jsonl: the rows and the loss of each step."""
    tensorboard: bool = True
    wandb: str | None = None
    """Project name: also log to Weights & Biases (`pip install avssl[wandb]`)."""
    checkpoint_every: int = 1000
    """Steps between checkpoints; the last step, and the last of each phase, always gets one."""
    keep: int = 2
    """Checkpoints to keep beside the best one of the phase (lowest mean training loss between two checkpoints)."""
    max_nonfinite: int = 10
    """Steps with a loss or gradient that is not finite are skipped; one more than these stops the run."""

    def __post_init__(self) -> None:
        for name in ("devices", "accumulate", "log_every", "checkpoint_every", "keep"):
            if getattr(self, name) <= 0:
                raise ConfigError(f"run.{name} is {getattr(self, name)}, but must be positive")
        if self.max_nonfinite < 0:
            raise ConfigError("run.max_nonfinite must not be negative")
        if self.strategy == "fsdp" and self.channels_last:
            raise ConfigError("run.channels_last and run.strategy fsdp exclude each other; set one of them back")


@dataclass
class TrainConfig:
    """The whole of a pretraining run."""

    run: RunConfig
    data: DataConfig
    model: Any
    """What is trained: a two-tower model, or what the task trains instead."""
    task: Any
    """The settings of the task that `task.name` names."""
    optim: OptimConfig = field(default_factory=OptimConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    phases: list[PhaseConfig] = field(default_factory=list)
    """Stretches of the run with settings of their own, one after the other; `run.steps` and `run.passes` are then null.
    `--phases[1].steps 9` changes one."""

    @classmethod
    def field_types(cls, tree: dict[str, Any]) -> dict[str, type]:
        task = tree.get("task")
        name = task.get("name", "xid") if isinstance(task, dict) else "xid"
        return {"task": task_config_class(name), "model": model_config_class(name)}

    def __post_init__(self) -> None:
        if not self.data.shards:
            raise ConfigError("data.shards: empty; name at least one folder written by avssl-shards build")
        if isinstance(self.model, ModelConfig):
            self._check_inputs(self.model)
        if self.phases and (self.run.steps is not None or self.run.passes is not None):
            raise ConfigError("run.steps and run.passes: must be null where phases are given; each has its own length")
        if not self.phases:
            check_length(self.run.steps, self.run.passes, "run.steps and run.passes")
        phases = self.resolved_phases()
        for number, phase in enumerate(phases):
            with naming(phase.where):
                if phase.data.batch_size % self.run.accumulate:
                    raise ConfigError(
                        f"data.batch_size ({phase.data.batch_size}) is not a multiple of run.accumulate"
                        f" ({self.run.accumulate})"
                    )
                phase.task.check(phase.data, self.model)
                for earlier in phases[:number]:
                    earlier.task.check_change(phase.task)

    def resolved_phases(self) -> list[Phase]:
        """The phases with all their settings; the whole run as one where none are given."""
        settings = {section: getattr(self, section) for section in (*SECTIONS, "data")}
        if self.phases:
            return resolve(self.phases, settings)
        return [Phase(where="", name=None, steps=self.run.steps, passes=self.run.passes, **settings)]

    def _check_inputs(self, model: ModelConfig) -> None:
        """What the data give must be what the towers are declared for."""
        for name, spec, wanted in (
            ("video", self.data.video, model.video_input if model.video else None),
            ("audio", self.data.audio, model.audio_input if model.audio else None),
        ):
            if (spec is None) != (wanted is None):
                raise ConfigError(f"data.{name} and model.{name}: one of them is null, the other is not")
            for key in ("frames", "fps") if name == "video" else ("rate_hz", "duration_s", "channels"):
                ours, theirs = getattr(spec, key, None), getattr(wanted, key, None)
                if ours != theirs:
                    raise ConfigError(
                        f"data.{name}.{key} is {ours}, but the model is declared for model.{name}_input.{key} {theirs};"
                        " set them equal"
                    )
