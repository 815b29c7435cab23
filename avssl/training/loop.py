"""The training loop: batches in, optimiser steps, a run folder out. Resuming repeats an uninterrupted run exactly."""

from __future__ import annotations

import dataclasses
import random
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, NamedTuple, cast

import numpy as np
import torch
from torch import Tensor, nn

from avssl import rng
from avssl.config import plain
from avssl.data.loader import Loader
from avssl.data.transforms import prepare, to_device
from avssl.errors import BudgetError, ConfigError, ModelError
from avssl.models.config import VideoInput
from avssl.models.folder import save_model
from avssl.models.two_tower import TwoTower
from avssl.tasks.base import Batch
from avssl.tasks.registry import task_class
from avssl.training import checkpoint, optim
from avssl.training.batch_norm import synchronise_batch_norm
from avssl.training.card import model_card
from avssl.training.checkpoint import Checkpoints
from avssl.training.config import TrainConfig
from avssl.training.distributed import ProcessGroup, full_state, load_full_state, make_fabric
from avssl.training.log import Log, Meter, peak_memory_mb
from avssl.training.run_folder import RunFolder

_STOP_SIGNALS = (signal.SIGTERM, signal.SIGUSR1)

Outcome = Literal["finished", "stopped"]


def print_line(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


class StepResult(NamedTuple):
    """What one optimiser step came to. `metrics` is None if the step was skipped because something was not finite."""

    metrics: dict[str, float] | None
    rows: list[int]  # of the global batch, in order; only filled where someone wants to know
    clips: int


class Trainer:
    """A run, opened at the step after its last good checkpoint (or at its start).

    Args:
        config: the resolved settings; `config.run.dir` is created, or must hold a run of the same config.
        say: receives log lines (on rank 0, and on any rank those that name its unusable samples).
    """

    def __init__(self, config: TrainConfig, say: Callable[[str], None] = print_line):
        self.config = config
        self.folder = RunFolder(config.run.dir)
        self.folder.check(config)
        self.fabric = make_fabric(config.run)
        self.ranks = ProcessGroup(self.fabric.device)
        self.main = self.ranks.rank == 0
        self._say_anywhere, self.say = say, say if self.main else _silent
        self._prepare_device()

        self.micro_batch = config.data.batch_size // config.run.accumulate
        self.loader = Loader(
            dataclasses.replace(config.data, batch_size=self.micro_batch),
            rank=self.ranks.rank,
            world_size=self.ranks.size,
        )
        rows = len(self.loader.rows)
        self.total_steps = config.run.total_steps(rows, config.data.batch_size)
        self.warmup = optim.warmup_length(config.schedule, rows / config.data.batch_size)
        self.say(self.loader.summary)

        self.task, self.wrapped, self.optimizer = self._build()
        self._model_buffers = [buffer for buffer in self.task.model.buffers() if buffer.numel()]
        self.checkpoints = Checkpoints(self.folder.checkpoints, config.run.keep)
        self.step = 0
        self.nonfinite = 0
        self.best: float | None = None
        self.meter, self._since_checkpoint = Meter(), Meter()
        self._stop_asked = False
        self._named = 0  # skipped samples that were reported
        self.fabric.barrier()  # nobody writes before all have looked
        self._resume()
        if self.main:
            self.folder.write_start(config, str(self.fabric.device), self.ranks.size)

    def run(self, advance: Callable[[], None] = lambda: None) -> Outcome:
        """Train to the last step, or until SIGTERM or SIGUSR1, after which the state is on disk in either case."""
        if self.step >= self.total_steps:
            self.say(f"{self.folder.path}: finished, all {self.total_steps} steps are done; raise run.steps to go on")
            return "finished"
        run = self.config.run
        log = self._open_log() if self.main else None
        try:
            with self._watching_signals():
                while self.step < self.total_steps:
                    started, waited = time.perf_counter(), self.loader.wait_s
                    result = self._take_step()
                    self.step += 1
                    self._count(result)
                    spent = {"step_s": time.perf_counter() - started, "wait_s": self.loader.wait_s - waited}
                    for meter in (self.meter, self._since_checkpoint):
                        meter.add(result.metrics, clips=result.clips, **spent)
                    if log:
                        log.write_rows(self.step, result.rows, result.metrics["loss"] if result.metrics else None)
                    last = self.step == self.total_steps
                    if self.step % run.log_every == 0 or last:
                        self._write_record(log)
                    stopping = not last and self._any_rank_asked_to_stop()
                    if self.step % run.checkpoint_every == 0 or last or stopping:
                        self._save(log)
                    advance()
                    if stopping:
                        self.say(f"stopped by a signal after step {self.step}; the same command continues")
                        return "stopped"
            return "finished"
        finally:
            self.loader.close()
            if log:
                log.close()

    def close(self) -> None:
        """Leave the process group; for the end of the process."""
        self.loader.close()
        self.ranks.close()

    def _prepare_device(self) -> None:
        run = self.config.run
        if run.deterministic:
            torch.use_deterministic_algorithms(True, warn_only=True)
        if self.fabric.device.type == "cuda":
            torch.backends.cudnn.benchmark = not run.deterministic

    def _build(self) -> tuple[Any, Any, Any]:
        """The task, the same as Fabric wrapped it, and the optimiser."""
        config, run = self.config, self.config.run
        _seed_everything(rng.step_seed(run.seed, 0))
        model: nn.Module = TwoTower(config.model)
        model = synchronise_batch_norm(model, self.ranks) if run.sync_batch_norm else model
        task = task_class(config.task.name)(
            config.task,
            model,
            rows=self.loader.rows_total,
            usable=torch.from_numpy(self.loader.rows),
            seed=run.seed,
        )
        if run.channels_last:
            to_channels_last(task)
        if run.compile:
            compile_learned(task.model)
        if self.ranks.size > 1 and run.strategy == "fsdp":  # parameters must be sharded before the optimiser sees them
            wrapped = self.fabric.setup_module(task)
            optimizer = self.fabric.setup_optimizers(optim.make_optimizer(wrapped.parameters(), config.optim))
        else:
            wrapped, optimizer = self.fabric.setup(task, optim.make_optimizer(task.parameters(), config.optim))
        return task.train(), wrapped, optimizer

    def _take_step(self) -> StepResult:
        """One optimiser step over `run.accumulate` micro-batches."""
        run, step = self.config.run, self.step + 1
        batches = [next(self.loader) for _ in range(run.accumulate)]
        _seed_everything(rng.step_seed(run.seed, step) + self.ranks.rank)
        sizes = self.ranks.sum(torch.tensor([float(len(b["row"])) for b in batches], device=self.fabric.device))
        shares = (sizes / sizes.sum()).tolist()
        clips = int(sizes.sum()) * self.config.data.clips
        before = [buffer.clone() for buffer in self._model_buffers]

        metrics: dict[str, float] = {}
        memories = []
        for number, (batch, share) in enumerate(zip(batches, shares, strict=True)):
            with self.fabric.no_backward_sync(self.wrapped, enabled=number < run.accumulate - 1):
                output = self._forward(batch, rng.step_seed(run.seed, step * run.accumulate + number))
                values = torch.stack(list(output["metrics"].values())).tolist()  # the one wait for the device
                found = dict(zip(output["metrics"], values, strict=True))
                for name, value in found.items():
                    metrics[name] = metrics.get(name, 0.0) + share * value
                if not np.isfinite(found["loss"]):
                    return self._skip_step(batches, before, clips, "loss")
                self.fabric.backward(output["loss"] * share)
            memories.append(output["memory"])

        metrics["grad_norm"] = self._clip_gradient()
        if not np.isfinite(metrics["grad_norm"]):
            return self._skip_step(batches, before, clips, "gradient")
        optim.set_learning_rate(self.optimizer, self._rate())
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.task.after_step(memories, self.ranks)
        return StepResult(metrics, self._all_rows(batches) if run.log_rows else [], clips)

    def _clip_gradient(self) -> float:
        """The norm of the whole gradient before it was clipped (if it is)."""
        limit = self.config.optim.clip_norm or float("inf")
        norm = self.fabric.clip_gradients(self.wrapped, self.optimizer, max_norm=limit, error_if_nonfinite=False)
        assert norm is not None
        return norm.item()

    def _forward(self, batch: Batch, seed: int) -> Any:
        device, bf16 = self.fabric.device, self.config.run.precision == "bf16"
        picture = cast(VideoInput, self.config.model.video_input)  # None only where no batch has pictures
        prepared = prepare(to_device(batch, device), picture)
        # Not Fabric's own bf16: it would cast the waveforms too, before the spectrogram.
        with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            return self.wrapped(prepared, ranks=self.ranks, seed=seed)

    def _skip_step(self, batches: list[Batch], before: list[Tensor], clips: int, what: str) -> StepResult:
        """Undo what the forward pass left behind. All ranks come here together: what they looked at is global."""
        self.optimizer.zero_grad(set_to_none=True)
        for buffer, value in zip(self._model_buffers, before, strict=True):
            buffer.copy_(value)
        rows = self._all_rows(batches)
        self.say(f"step {self.step + 1}: the {what} is not finite; step skipped; rows {rows}")
        return StepResult(None, rows, clips)

    def _count(self, result: StepResult) -> None:
        if result.metrics is not None:
            return
        self.nonfinite += 1
        if self.nonfinite > self.config.run.max_nonfinite:
            raise BudgetError(
                f"{self.nonfinite} steps were not finite, more than run.max_nonfinite"
                f" {self.config.run.max_nonfinite} allows; the last is step {self.step} with rows {result.rows};"
                " lower optim.lr, set optim.clip_norm, or look at these samples with avssl-shards preview"
            )

    def _all_rows(self, batches: list[Batch]) -> list[int]:
        """The manifest rows of a step over all ranks, in global order."""
        rows: list[int] = []
        for batch in batches:
            part = batch["row"].to(self.fabric.device)
            rows += self.ranks.gather(part, self.ranks.counts(len(part))).tolist()
        return rows

    def _rate(self) -> float:
        """The learning rate of the step being taken."""
        config = self.config
        return optim.learning_rate(config.schedule, config.optim.lr, self.step + 1, self.total_steps, self.warmup)

    def _write_record(self, log: Log | None) -> None:
        meter = self.meter
        self._name_skipped()
        skipped, wait_s = self.ranks.sum(
            torch.tensor([float(self.loader.skipped.total()), meter.wait_s], device=self.fabric.device)
        ).tolist()
        if log:
            group = self.optimizer.param_groups[0]
            log.write(
                {
                    "step": self.step,
                    "pass": round(self.loader.position / len(self.loader.rows), 6),
                    **meter.means(),
                    "lr": group["lr"],
                    "clips_per_s": round(meter.clips / meter.step_s, 2),
                    "step_ms": round(1000 * meter.step_s / meter.taken, 3),
                    "data_wait_percent": round(100 * wait_s / self.ranks.size / meter.step_s, 2),
                    "peak_memory_mb": round(peak_memory_mb(self.fabric.device), 1),
                    "skipped": int(skipped),
                    "nonfinite": self.nonfinite,
                }
            )
        meter.clear()

    def _name_skipped(self) -> None:
        """Say which samples this rank could not use since the last time."""
        total = self.loader.skipped.total()
        new = min(total - self._named, len(self.loader.skipped_samples))
        for sample in list(self.loader.skipped_samples)[len(self.loader.skipped_samples) - new :]:
            self._say_anywhere(f"skipped {sample}")
        self._named = total

    def _save(self, log: Log | None) -> None:
        """Checkpoint and model folder; every rank takes part in gathering the state."""
        task_state, optimizer_state = full_state(self.task, self.optimizer.optimizer)
        loss = self._since_checkpoint.means()["loss"]
        is_best = loss is not None and (self.best is None or loss < self.best)
        self.best = loss if is_best else self.best
        self._since_checkpoint.clear()
        if not log:
            return
        log.flush()
        state = {
            "task": task_state,
            "optimizer": optimizer_state,
            "loader": self.loader.state_dict(),
            "meter": self.meter.state_dict(),
            "nonfinite": self.nonfinite,
            "best": self.best,
        }
        self.checkpoints.save(self.step, state, best=is_best)
        self._save_model(task_state)

    def _save_model(self, task_state: dict[str, Any]) -> None:
        config = self.config
        model: nn.Module = self.task.model
        if self.ranks.size > 1 and config.run.strategy == "fsdp":
            model = TwoTower(config.model.without_files())
            prefix = "model."
            whole = {key.removeprefix(prefix): v for key, v in task_state.items() if key.startswith(prefix)}
            model.load_state_dict(whole)
        trained = {
            "task": config.task.name,
            "steps": self.step,
            "samples": self.loader.position,
            "rows": len(self.loader.rows),
            "manifest_sha256": self.loader.state_dict()["manifest_sha256"],
        }
        save_model(self.folder.model, model, config.model, card=model_card(config, trained), extra={"trained": trained})

    def _resume(self) -> None:
        path = self.checkpoints.latest(self.say) if self.main else None
        path = self.fabric.broadcast(path)
        if path is None:
            return
        state = checkpoint.load(Path(path))
        self.loader.load_state_dict(state["loader"])
        if state["loader"]["position"] % self.micro_batch:
            raise ConfigError(f"{path}: its position is not at the border of a batch of {self.micro_batch} samples")
        try:
            load_full_state(self.task, self.optimizer.optimizer, state["task"], state["optimizer"])
        except (RuntimeError, KeyError, ValueError) as error:
            raise ModelError(f"{path}: does not fit the configured model ({str(error).splitlines()[0]})") from error
        self.step, self.nonfinite, self.best = state["step"], state["nonfinite"], state["best"]
        self.meter.load_state_dict(state["meter"])
        self.say(f"continuing after step {self.step} from {path}")

    def _open_log(self) -> Log:
        run = self.config.run
        return Log(
            self.folder.path,
            step=self.step,
            rows=run.log_rows,
            tensorboard=run.tensorboard,
            wandb=run.wandb,
            config=plain(self.config),
            say=self.say,
        )

    def _any_rank_asked_to_stop(self) -> bool:
        if self.ranks.size == 1:
            return self._stop_asked
        return bool(self.ranks.sum(torch.tensor(float(self._stop_asked), device=self.fabric.device)) > 0)

    @contextmanager
    def _watching_signals(self) -> Iterator[None]:
        """SIGTERM and SIGUSR1 ask to stop at the end of the step (only the main thread can receive them)."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def ask(*_: Any) -> None:
            self._stop_asked = True

        before = {number: signal.signal(number, ask) for number in _STOP_SIGNALS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


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


def _silent(_: str) -> None:
    pass
