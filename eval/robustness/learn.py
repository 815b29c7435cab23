"""A training run in memory: the product's task, optimiser and schedule over clips that are held as arrays."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch

from avssl import config
from avssl.data.order import entries
from avssl.models.config import HeadConfig, ModelConfig, TowerConfig
from avssl.models.two_tower import TwoTower
from avssl.rng import sample_generator, step_seed
from avssl.tasks.xid import XIDTask
from avssl.tasks.xid_config import XIDConfig
from avssl.training.config import OptimConfig, ScheduleConfig
from avssl.training.distributed import ProcessGroup
from avssl.training.optim import learning_rate, make_optimizer, set_learning_rate
from eval.robustness import towers
from eval.robustness.clips import Clips, augmented
from eval.robustness.given_weights import OracleXIDTask
from eval.robustness.study import Training

HEAD = HeadConfig(hidden=[128], dim=64)


def make_model(width: int) -> TwoTower:
    """Small towers that take spectrograms as they are."""
    kwargs = {"width": width}
    model = TwoTower(
        ModelConfig(video=TowerConfig(towers.VIDEO, kwargs), audio=TowerConfig(towers.AUDIO, kwargs), head=HEAD)
    )
    model.front_end = towers.Ready()  # type: ignore[assignment]
    return model


class Learner:
    """A task on its way through the phases. All is determined by `seed` and the settings, on one thread."""

    def __init__(self, clips: Clips, task: dict[str, Any], training: Training, seed: int, oracle: bool = False):
        torch.manual_seed(step_seed(seed, 0))
        self.clips, self.training, self.seed = clips, training, seed
        kind = OracleXIDTask if oracle else XIDTask
        self.task = kind(
            config.build(XIDConfig, task, "task"),
            make_model(training.width),
            rows=len(clips),
            seed=seed,
            steps_per_pass=len(clips) / training.batch_size,
        )
        if isinstance(self.task, OracleXIDTask):
            self.task.mismatched = clips.mismatched
        self.optimizer = make_optimizer(self.task.parameters(), OptimConfig(lr=training.lr))
        self.steps = 0

    def state(self) -> dict[str, Any]:
        """A copy of all that `load` needs."""
        return copy.deepcopy(
            {"task": self.task.state_dict(), "optimizer": self.optimizer.state_dict(), "steps": self.steps}
        )

    def load(self, state: dict[str, Any]) -> None:
        state = copy.deepcopy(state)
        self.task.load_state_dict(state["task"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.steps = state["steps"]

    def enter(self, task: dict[str, Any]) -> None:
        """Begin another phase with these settings."""
        self.task.enter(config.build(XIDConfig, task, "task"))

    def learn(self, steps: int, lr: float, after_step: Callable[[int], object] = lambda step: None) -> None:
        """One phase. `after_step` is called with the number of its steps done."""
        ranks, rows = ProcessGroup(), len(self.clips)
        schedule = ScheduleConfig("cosine", final=self.training.lr_final)
        self.task.train()
        for step in range(steps):
            numbers = range(self.steps * self.training.batch_size, (self.steps + 1) * self.training.batch_size)
            batch_rows = torch.tensor([entry.row for entry in entries(numbers, rows=rows, seed=self.seed)])
            batch = augmented(self.clips, batch_rows, sample_generator(self.seed, self.steps, rows))
            set_learning_rate(self.optimizer, learning_rate(schedule, lr, step + 1, steps, 0))
            self.task.before_step(step, ranks)
            output = self.task(batch, ranks=ranks, seed=step_seed(self.seed, self.steps))
            self.optimizer.zero_grad()
            output["loss"].backward()
            self.optimizer.step()
            self.task.after_step([output["memory"]], ranks)
            self.steps += 1
            after_step(step + 1)
