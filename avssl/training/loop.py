"""The training loop: batches in, optimiser steps, a run folder out. Resuming repeats an uninterrupted run exactly."""

from __future__ import annotations

import dataclasses
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from avssl.config import plain
from avssl.data.loader import Loader
from avssl.errors import BudgetError, ConfigError, ModelError
from avssl.models.folder import save_model
from avssl.separation.anchor_mining import mine
from avssl.separation.ontology import class_numbers
from avssl.tasks.base import Batch
from avssl.training import checkpoint, starting_point
from avssl.training.card import model_card
from avssl.training.checkpoint import Checkpoints
from avssl.training.config import TrainConfig
from avssl.training.course import Course
from avssl.training.distributed import ProcessGroup, make_fabric
from avssl.training.heap import keep_freed_memory
from avssl.training.learner import Learner, StepResult
from avssl.training.log import Log, Meter, peak_memory_mb
from avssl.training.phases import Phase
from avssl.training.run_folder import RunFolder

_STOP_SIGNALS = (signal.SIGTERM, signal.SIGUSR1)

Outcome = Literal["finished", "stopped"]


def print_line(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


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
        if self.main:
            self.folder.claim()
        try:
            self._set_up(config, say)
        except BaseException:
            self.folder.abandon()
            raise

    def _set_up(self, config: TrainConfig, say: Callable[[str], None]) -> None:
        self._prepare_device()
        phases = config.resolved_phases()
        micro_batch = phases[0].data.batch_size // config.run.accumulate
        data = dataclasses.replace(phases[0].data, batch_size=micro_batch)
        classes = class_numbers(config.model.classes) if data.labels else None
        if data.anchors and self.main:
            mine(data, classes or {}, self.fabric.device, say)
        self.fabric.barrier()
        self.loader = Loader(data, rank=self.ranks.rank, world_size=self.ranks.size, classes=classes)
        self.course = Course(phases, len(self.loader.rows))
        for phase in [*phases[1:], phases[0]]:  # whose batches do not divide into parts is said now
            self._load_for(phase)
        self.say(self.loader.summary)

        self.checkpoints = Checkpoints(self.folder.checkpoints, config.run.keep)
        self.step = 0
        self.nonfinite = 0
        self.best: float | None = None
        self.meter, self._since_checkpoint = Meter(), Meter()
        self._stop_asked = False
        self._named = 0  # skipped samples that were reported
        self.fabric.barrier()  # nobody writes before all have looked
        self.learner = self._start()
        if self.main:
            self.folder.write_start(config, str(self.fabric.device), self.ranks.size)

    @property
    def task(self) -> Any:
        """The task in training (see `avssl.tasks.base.Task`)."""
        return self.learner.task

    @property
    def total_steps(self) -> int:
        return self.course.total_steps(self.step)

    def run(self, advance: Callable[[], None] = lambda: None) -> Outcome:
        """Train to the last step, or until SIGTERM or SIGUSR1, after which the state is on disk in either case."""
        if self.step >= self.total_steps:
            longer = "the last phase's length or add a phase" if self.config.phases else "run.steps"
            self.say(f"{self.folder.path}: finished, all {self.total_steps} steps are done; raise {longer} to go on")
            return "finished"
        run = self.config.run
        log = self._open_log() if self.main else None
        try:
            with self._watching_signals():
                while self.step < self.total_steps:
                    if self.course.is_over(self.step):
                        self._enter_next_phase()
                    self._take_step(log)
                    border, last = self.course.is_over(self.step), self.step == self.total_steps
                    if self.step % run.log_every == 0 or border:
                        self._write_record(log)
                    stopping = not last and self._any_rank_asked_to_stop()
                    if self.step % run.checkpoint_every == 0 or border or stopping:
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
            self.folder.release()

    def close(self) -> None:
        """Leave the process group; for the end of the process.

        All ranks at once: launchers end the others when the first has ended, and one may be writing the checkpoint.
        """
        self.loader.close()
        self.fabric.barrier()
        self.ranks.close()

    def _prepare_device(self) -> None:
        run = self.config.run
        if run.deterministic:
            torch.use_deterministic_algorithms(True, warn_only=True)
        if self.fabric.device.type == "cuda":
            torch.backends.cudnn.benchmark = not run.deterministic
        else:
            keep_freed_memory()

    def _start(self) -> Learner:
        """The learner as the last checkpoint has it, or as `run.init` or chance will have it."""
        path = self.checkpoints.latest(self.say) if self.main else None
        path = self.fabric.broadcast(path)
        if path is not None:
            return self._resumed(Path(path))
        if self.config.run.init is None:
            return self._new_learner()
        found = starting_point.find(self.config.run.init, self.say) if self.main else Path()
        point = starting_point.read(self.fabric.broadcast(found))
        manifest = self.loader.state_dict()["manifest_sha256"]
        return self._new_learner(lambda task: starting_point.take(point, task, manifest, self.say))

    def _new_learner(self, prepare_task: Callable[[nn.Module], None] = lambda task: None) -> Learner:
        return Learner(self.config, self.course.phase, self.fabric, self.ranks, self.loader, prepare_task)

    def _resumed(self, path: Path) -> Learner:
        """The learner of the checkpoint; everything else here is set to what it was."""
        state = checkpoint.load(path, mapped=self.fabric.device.type == "cuda")  # there all of it is copied
        self.folder.check(self.config, entered=state["course"]["phase"])
        self.loader.load_state_dict(state["loader"])
        sizes = {phase.data.batch_size // self.config.run.accumulate for phase in self.course.phases}
        if len(sizes) == 1 and state["loader"]["position"] % (size := sizes.pop()):
            raise ConfigError(f"{path}: its position is not at the border of a batch of {size} samples")
        learner = self._new_learner()
        self.course.load_state_dict(state["course"])
        for phase in self.course.phases[1 : self.course.index + 1]:
            learner.enter(phase)
        self._load_for(self.course.phase)
        try:
            learner.load_state(state["task"], state["optimizer"])
        except (RuntimeError, KeyError, ValueError) as error:
            raise ModelError(f"{path}: does not fit the configured model ({str(error).splitlines()[0]})") from error
        self.step, self.nonfinite, self.best = state["step"], state["nonfinite"], state["best"]
        self.meter.load_state_dict(state["meter"])
        self.say(f"continuing after step {self.step} from {path}")
        return learner

    def _enter_next_phase(self) -> None:
        self.course.enter_next(self.step)
        self.learner.enter(self.course.phase)
        self._load_for(self.course.phase)
        self.best = None  # losses of different objectives cannot be compared
        self.say(self.course.describe())

    def _load_for(self, phase: Phase) -> None:
        """The loader's next batches are micro-batches of this phase."""
        batch_size = phase.data.batch_size // self.config.run.accumulate
        if (batch_size, phase.data.views) != (self.loader.config.batch_size, self.loader.config.views):
            self.loader.change(batch_size=batch_size, views=phase.data.views)

    def _take_step(self, log: Log | None) -> None:
        """One optimiser step over `run.accumulate` micro-batches, and what is noted of it."""
        started, waited = time.perf_counter(), self.loader.wait_s
        batches = [next(self.loader) for _ in range(self.config.run.accumulate)]
        step = self.step + 1
        result = self.learner.take_step(
            batches,
            step=step,
            step_in_phase=self.step - self.course.began,
            rate=self.course.learning_rate(step),
        )
        rows = self._all_rows(batches) if result.fault or self.config.run.log_rows else []
        if result.fault:
            self._count_fault(result, rows)
        self.step = step
        spent = {"step_s": time.perf_counter() - started, "wait_s": self.loader.wait_s - waited}
        for meter in (self.meter, self._since_checkpoint):
            meter.add(result.metrics, clips=result.clips, **spent)
        if log:
            log.write_rows(self.step, rows, result.metrics["loss"] if result.metrics else None)

    def _count_fault(self, result: StepResult, rows: list[int]) -> None:
        step, limit = self.step + 1, self.config.run.max_nonfinite
        self.say(f"step {step}: the {result.fault} is not finite; step skipped; rows {rows}")
        self.nonfinite += 1
        if self.nonfinite > limit:
            raise BudgetError(
                f"{self.nonfinite} steps were not finite, more than run.max_nonfinite {limit} allows; the last is step"
                f" {step} with rows {rows}; lower optim.lr, set optim.clip_norm, or look at these samples with"
                " avssl-shards preview"
            )

    def _all_rows(self, batches: list[Batch]) -> list[int]:
        """The manifest rows of a step over all ranks, in global order."""
        rows: list[int] = []
        for batch in batches:
            part = batch["row"].to(self.fabric.device)
            rows += self.ranks.gather(part, self.ranks.counts(len(part))).tolist()
        return rows

    def _write_record(self, log: Log | None) -> None:
        meter = self.meter
        self._name_skipped()
        skipped, wait_s = self.ranks.sum(
            torch.tensor([float(self.loader.skipped.total()), meter.wait_s], device=self.fabric.device)
        ).tolist()
        if log:
            group = self.learner.optimizer.param_groups[0]
            log.write(
                {
                    "step": self.step,
                    **({"phase": self.course.phase.name} if self.config.phases else {}),
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
        task_state, optimizer_state = self.learner.state()
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
            "course": self.course.state_dict(),
            "meter": self.meter.state_dict(),
            "nonfinite": self.nonfinite,
            "best": self.best,
        }
        self.checkpoints.save(self.step, state, best=is_best)
        self._save_model(task_state)

    def _save_model(self, task_state: dict[str, Any]) -> None:
        config = self.config
        trained = {
            "task": config.task.name,
            "steps": self.step,
            "samples": self.loader.position,
            "rows": len(self.loader.rows),
            "manifest_sha256": self.loader.state_dict()["manifest_sha256"],
        }
        model, card = self.learner.whole_model(task_state), model_card(config, trained)
        save_model(self.folder.model, model, config.model, card=card, extra={"trained": trained})

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


def _silent(_: str) -> None:
    pass
