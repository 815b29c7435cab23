"""The protocol `avss`: audio-visual semantic segmentation of views, with a head on the frozen model (methods C.10)."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Generator
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

import avssl
from avssl.data.collate import Batch
from avssl.data.config import DataConfig
from avssl.data.loader import Loader
from avssl.data.transforms import prepare, to_device
from avssl.errors import BudgetError, MediaError, ModelError, UsageError
from avssl.evaluation.protocol import EvalConfig, Outcome
from avssl.evaluation.scene_config import AVSSConfig
from avssl.evaluation.scenes import scene_data, switches_of
from avssl.evaluation.segmentation import NO_CLASS, SegmentationScore
from avssl.evaluation.segmentation_head import SegmentationHead
from avssl.evaluation.target_maps import TargetMaps, see_map
from avssl.models.two_tower import TwoTower


class Seen(NamedTuple):
    """Views of a batch: maps of the tower's stages [N, C, T, h, w], what goes beside the coarsest [N, E], and targets
    [N, H, W] int64."""

    stages: list[Tensor]
    extra: Tensor | None
    target: Tensor


def run(config: EvalConfig, out: Path, advance: Callable[..., object]) -> Outcome:
    """Train the head on views of the training scenes, and count over those of the test scenes."""
    task: AVSSConfig = config.protocol
    if config.model is None:
        raise UsageError("model: null, but this protocol needs one; name a model folder")
    model = avssl.load(config.model, device=config.device).model
    maps = TargetMaps(task.maps, task.map_fps, len(task.classes))
    training = _Views(config, model, maps, "train")
    steps = max(1, training.draws // task.fit.batch_size)
    with torch.random.fork_rng():
        torch.manual_seed(config.seed)
        head = _train(task, model, training, steps, advance)
    test = _Views(config, model, maps, "test")
    score = SegmentationScore(task.classes)
    with torch.no_grad():
        for seen in test.read(config.device):
            score.add(head(seen.stages, seen.extra).argmax(1), seen.target)
            advance(1)
    if not score.images:
        raise BudgetError(f"protocol.maps: none of the test views has a map in {task.maps}; the first: {test.missing}")
    return Outcome(
        metrics=score.metrics(),
        chance=score.one_class_metrics(),
        items=score.images,
        skipped=training.skipped + test.skipped,
        tables={"by_class": score.by_class()},
        extra={"setting": task.setting, "switches": vars(switches_of(model.config))},
    )


def _train(
    task: AVSSConfig, model: TwoTower, training: _Views, steps: int, advance: Callable[..., object]
) -> SegmentationHead:
    fit, head, optimizer = task.fit, None, None
    found = training.read(next(model.parameters()).device, endless=True)
    for step, seen in enumerate(islice(found, steps * fit.passes)):
        if head is None or optimizer is None:
            head = make_head(task, seen)
            optimizer = torch.optim.Adam(head.parameters(), lr=fit.lr, weight_decay=fit.weight_decay)
        for group in optimizer.param_groups:
            group["lr"] = fit.lr * fit.drop ** sum(step >= after * steps for after in fit.drop_at)
        loss = segmentation_loss(head(seen.stages, seen.extra), seen.target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        advance(1)
    found.close()
    if head is None:
        raise BudgetError(f"protocol.maps: no training view has a map in {task.maps}; the first: {training.missing}")
    return head.eval()


def make_head(task: AVSSConfig, seen: Seen) -> SegmentationHead:
    """A new head for what is seen of these views."""
    stages = [(map_.shape[1], map_.shape[2]) for map_ in seen.stages]
    extra = seen.extra.shape[1] if seen.extra is not None else 0
    size_px, device = seen.target.shape[-1], seen.target.device
    return SegmentationHead(stages, extra, len(task.classes), size_px, lateral=task.lateral, width=task.width).to(
        device
    )


def segmentation_loss(logits: Tensor, target: Tensor) -> Tensor:
    """Cross-entropy, mean over the pixels that have a class (0 where none has)."""
    total = F.cross_entropy(logits, target, ignore_index=NO_CLASS, reduction="sum")
    return total / (target != NO_CLASS).sum().clamp(min=1)


def look(task: AVSSConfig, model: TwoTower, prepared: Batch) -> tuple[list[Tensor], Tensor | None]:
    """The tower's maps of all views, fine to coarse, and what the setting puts beside the coarsest."""
    assert model.video_tower is not None
    size = prepared["video"].shape[:2]
    found = model.video_tower.feature_stages(prepared["video"].flatten(0, 1))
    maps = [map_ for map_ in found.values() if map_.ndim == 5][1:]  # without the stem, which is as fine as the next
    if task.setting == "video":
        return maps, None
    video, audio = found["pool"].unflatten(0, size), model.audio_features(prepared["audio"].flatten(0, 1))
    parts = [audio.unflatten(0, size)]
    if task.setting == "video+audio+context":
        if model.aligner is None:
            raise ModelError("protocol.setting: this model has no aligner for `context`; use one trained with AVSA")
        parts += [model.aligner.predict("audio", video), model.aligner.predict("video", parts[0])]
    return maps, torch.cat(parts, -1).flatten(0, 1)


class _Views:
    """Views of one part's scenes with their targets. Draws without a map are left out and named in `skipped`."""

    def __init__(self, config: EvalConfig, model: TwoTower, maps: TargetMaps, part: str):
        self.task, self.model, self.maps = config.protocol, model, maps
        self.data = self._data(config, part)
        self.loader = Loader(self.data, endless=part == "train")
        self.draws = len(self.loader.groups) * self.data.draws_per_row
        self._missing: dict[str, str] = {}

    def _data(self, config: EvalConfig, part: str) -> DataConfig:
        task, scenes, training = self.task, self.task.scenes, part == "train"
        views = scenes.views
        if not training:
            views = dataclasses.replace(views, fov_deg=(task.test_fov_deg, task.test_fov_deg), aspect=(1.0, 1.0))
        data = scene_data(
            self.model.config,
            getattr(scenes, part),
            views,
            draws=scenes.train_draws if training else scenes.test_draws,
            seed=config.seed + (not training),
            sample_by=scenes.sample_by if training else "row",
            batch_size=task.fit.batch_size if training else scenes.batch_size,
            workers=scenes.workers,
        )
        return dataclasses.replace(data, turn=None)

    @property
    def skipped(self) -> list[dict[str, str]]:
        unread = {f"{sample.key} in {sample.shard}": sample.detail for sample in self.loader.skipped_samples}
        return [{"item": item, "cause": cause} for item, cause in (unread | self._missing).items()]

    @property
    def missing(self) -> str:
        """The first map that was not there, in words."""
        return next((f"{item}: {cause}" for item, cause in self._missing.items()), "no clip could be read")

    def read(self, device: torch.device | str, *, endless: bool = False) -> Generator[Seen, None, None]:
        """Batches, without gradients; with `endless` until a whole pass has had no map."""
        since_any = 0
        try:
            for batch in self.loader:
                targets, kept = self._targets(batch)
                since_any = 0 if kept else since_any + len(batch["row"])
                if endless and since_any > self.draws:
                    return
                if kept:
                    yield self._seen(batch, targets, torch.tensor(kept), device)
        finally:
            self.loader.close()

    @torch.no_grad()
    def _seen(self, batch: Batch, targets: list[Tensor], kept: Tensor, device: torch.device | str) -> Seen:
        chosen: dict[str, Any] = to_device({name: value[kept] for name, value in batch.items()}, device)
        spec = self.model.config.video_input
        assert spec is not None
        prepared = prepare(chosen, spec, self.data.views, self.data.hearing)
        maps, extra = look(self.task, self.model, prepared)
        return Seen(maps, extra, torch.cat(targets).long().to(device))

    def _targets(self, batch: Batch) -> tuple[list[Tensor], list[int]]:
        """Maps as seen from each sample's views, of the middle of its clip, and which samples have one."""
        video, views = self.data.video, self.data.views
        spec = self.model.config.video_input
        assert video is not None and views is not None and spec is not None
        targets, kept = [], []
        for number, row in enumerate(batch["row"].tolist()):
            record = self.loader.shards.record(row)
            time_s = record["start_s"] + float(batch["time_s"][number, 0, 0]) + video.duration_s / 2
            try:
                map_ = self.maps.at(record["source"], time_s)
            except MediaError as error:
                self._missing.setdefault(error.path, error.detail)
                continue
            targets.append(see_map(map_, batch["view_deg"][number], spec.size_px, views.switches.projection))
            kept.append(number)
        return targets, kept
