"""A training run in memory: the product's task, optimiser and schedule over scenes that are held as arrays."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from avssl.data.order import entries
from avssl.models.config import AlignmentConfig, AudioInput, FrontEndConfig, ModelConfig, TowerConfig
from avssl.models.two_tower import TwoTower
from avssl.rng import sample_generator, step_seed
from avssl.spatial.config import ViewConfig
from avssl.tasks.avsa import AVSATask
from avssl.tasks.avsa_config import AVSAConfig
from avssl.training.config import OptimConfig, ScheduleConfig
from avssl.training.distributed import ProcessGroup
from avssl.training.optim import learning_rate, make_optimizer, set_learning_rate
from eval.alignment import towers
from eval.alignment.scenes import BANDS, FPS, HEARD_FRAMES, RATE_HZ, Scenes
from eval.alignment.study import Method, Run, Training
from eval.alignment.views import heard, moments_of, seen, views_of
from eval.robustness.towers import Ready

_ROOM_DEG = 240.0  # of the horizon's 360: more of it is seldom found at random
CHANNELS = {"ambisonics": 4, "tetrahedral": 4, "stereo": 2, "mono": 1}


def make_model(method: Method, training: Training) -> TwoTower:
    """Small towers that take spectrograms as they are, and the aligner."""
    model = TwoTower(
        ModelConfig(
            video=TowerConfig(towers.VIDEO, {"width": 2 * training.width}),
            audio=TowerConfig(towers.AUDIO, {"width": training.width}),
            audio_input=AudioInput(
                RATE_HZ, HEARD_FRAMES / FPS, CHANNELS[method.hearing], FrontEndConfig("log_mel", {"bands": BANDS})
            ),
            head=None,
            alignment=AlignmentConfig(depth=method.depth, context=method.context, dim=64),
        )
    )
    model.front_end = Ready()  # type: ignore[assignment]
    return model


def view_config(training: Training, views: int) -> ViewConfig:
    """How viewpoints are drawn to train and to measure."""
    return ViewConfig(
        views=views,
        fov_deg=training.fov_deg,
        latitude_deg=training.latitude_deg,
        spacing_deg=min(training.spacing_deg, _ROOM_DEG / views),
        flip=training.flip,
    )


class Learner:
    """A method on its way through its phases. All is determined by the run, on one thread."""

    def __init__(self, scenes: Scenes, run: Run):
        torch.manual_seed(step_seed(run.seed, 0))
        self.scenes, self.run, self.steps = scenes, run, 0
        first = "avc" if run.method.curriculum else run.method.mode
        self.task = AVSATask(self._config(first), make_model(run.method, run.training), rows=len(scenes), seed=run.seed)

    def first_phase(self) -> list[dict[str, float]]:
        """AVC on one view a scene; without curriculum the method's own objective."""
        method = self.run.method
        mode, views = ("avc", 1) if method.curriculum else (method.mode, method.views)
        return self._learn(mode, views, self.run.training.first_steps)

    def second_phase(self) -> list[dict[str, float]]:
        """The method."""
        self.task.enter(self._config(self.run.method.mode))
        return self._learn(self.run.method.mode, self.run.method.views, self.run.training.steps)

    def start_from(self, learner: Learner) -> None:
        """Take over what another method learned in a first phase of AVC: towers and the heads that AVC compares."""
        theirs = learner.task.state_dict()
        self.task.load_state_dict({name: theirs.get(name, own) for name, own in self.task.state_dict().items()})
        self.steps = learner.steps

    def _config(self, mode: str) -> AVSAConfig:
        method = self.run.method
        return AVSAConfig(mode=mode, negatives=method.negatives, candidates=method.candidates)  # type: ignore[arg-type]

    def _learn(self, mode: str, views: int, steps: int) -> list[dict[str, float]]:
        training, ranks = self.run.training, ProcessGroup()
        optimizer = make_optimizer(self.task.parameters(), OptimConfig(lr=training.lr))
        schedule = ScheduleConfig("cosine", final=training.lr_final)
        self.task.train()
        log = []
        for step in range(steps):
            set_learning_rate(optimizer, learning_rate(schedule, training.lr, step + 1, steps, training.warm_up_steps))
            output = self.task(self._batch(mode, views), ranks=ranks, seed=step_seed(self.run.seed, self.steps))
            optimizer.zero_grad()
            output["loss"].backward()
            optimizer.step()
            self.steps += 1
            log.append({name: float(value) for name, value in output["metrics"].items()})
        return log

    def _batch(self, mode: str, views: int) -> dict[str, Any]:
        """Scenes in the order that training from shards has, with views, moment and changes of their own."""
        seed, size = self.run.seed, self.run.training.views_a_step // views
        numbers = range(self.steps * size, (self.steps + 1) * size)
        rows = [entry.row for entry in entries(numbers, rows=len(self.scenes), seed=seed)]
        random = sample_generator(seed, self.steps, len(self.scenes))
        config = view_config(self.run.training, 1 if mode == "avts" else views)
        draws = [
            moments_of(self.scenes, random, config, views) if mode == "avts" else views_of(self.scenes, random, config)
            for _ in rows
        ]
        video, audio = seen(self.scenes, rows, draws), heard(self.scenes, rows, draws, self.run.method.hearing)
        return {
            "row": torch.tensor(rows),
            "video": video + _uniform(random, 0.5, video.shape[:2], video.ndim),  # brighter or darker
            "audio": audio + _uniform(random, 6.0 / self.scenes.level.std_db, audio.shape[:1], audio.ndim),  # louder
        }


def _uniform(random: np.random.Generator, reach: float, shape: tuple[int, ...], dims: int) -> Tensor:
    """Numbers within plus and minus `reach` of this shape, with as many dimensions as asked."""
    numbers = random.uniform(-reach, reach, shape).astype(np.float32)
    return torch.from_numpy(numbers.reshape(*shape, *[1] * (dims - len(shape))))
