"""The protocols `avsa_bin`, `avc_bin` and `yaw`: draw scenes, train a head, score it, and show some test clips."""

from __future__ import annotations

from collections.abc import Callable, Generator
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import torch

import avssl
from avssl.errors import UsageError
from avssl.evaluation.bin_tasks import CHANCE, PairHead, Solved, Task, angle_between_deg, judge, solve, train_head
from avssl.evaluation.protocol import EvalConfig, Outcome
from avssl.evaluation.scene_config import SceneTaskConfig
from avssl.evaluation.scene_page import write_page
from avssl.evaluation.scenes import SceneReader, Scenes, read_scenes, scene_data, switches_of, with_transformer
from avssl.models.two_tower import TwoTower

_ANGLES_DEG = (0, 15, 30, 60, 90, 135, 180)
_TEST = 1  # added to the seed, so that test draws are not those of training where shards are the same


def run(config: EvalConfig, out: Path, advance: Callable[..., object]) -> Outcome:
    """Features of training and test draws, a head, its score; with `page_clips` also report.html in `out`."""
    task, model = config.protocol, _model(config)
    test_data = _data(config, model, "test")
    if task.tune:
        head, skipped = _tuned(config, model, advance)
        test, unread = _read(config, model, "test", advance)
        solved = judge(task.name, head, test, config.seed)
    else:
        train, skipped = _read(config, model, "train", advance)
        test, unread = _read(config, model, "test", advance)
        solved = solve(task.name, train, test, task.fit, seed=config.seed, device=config.device)
    if task.page_clips:
        write_page(out / "report.html", config.name, model, test_data, task.page_clips, solved.metrics, config.device)
    return Outcome(
        metrics=solved.metrics,
        chance=CHANCE[task.name],
        items=test.draws,
        skipped=skipped + unread,
        tables={"by_angle": by_angle(task.name, solved, test.turn_deg)} if task.name != "avc_bin" else {},
        extra={
            "switches": vars(switches_of(model.config)),
            "pairs": len(solved.answers),
            "test_sources": len(test.group.unique()),
            "rows": test.row.unique().tolist(),
        },
    )


def by_angle(task: Task, solved: Solved, turn_deg: torch.Tensor) -> list[dict[str, Any]]:
    """How well turned sounds were judged, by the size of their turn: small ones are nearly right."""
    turned = torch.ones_like(solved.answers, dtype=torch.bool) if task == "yaw" else solved.answers == 0
    size_deg = turn_deg[solved.draws[turned]].abs()
    if task == "yaw":
        score = angle_between_deg(solved.guesses, solved.answers)
    else:
        score = (solved.guesses[turned] == 0).float()
    rows = []
    for low, high in pairwise(_ANGLES_DEG):
        chosen = (size_deg >= low) & (size_deg < high + (high == _ANGLES_DEG[-1]))
        mean = score[chosen].mean().item() if chosen.any() else None
        row = {"from_deg": low, "to_deg": high, "draws": int(chosen.sum())}
        rows.append(row | {"mean_error_deg" if task == "yaw" else "found_turned": mean})
    return rows


def _model(config: EvalConfig) -> TwoTower:
    if config.model is None:
        raise UsageError("model: null, but this protocol needs one; name a model folder")
    return avssl.load(config.model, device=config.device).model


def _data(config: EvalConfig, model: TwoTower, part: str, **changes: Any) -> Any:
    scenes = config.protocol.scenes
    settings = {
        "draws": scenes.train_draws if part == "train" else scenes.test_draws,
        "seed": config.seed + (_TEST if part == "test" else 0),
        "sample_by": scenes.sample_by if part == "train" else "row",
        "batch_size": scenes.batch_size,
        "workers": scenes.workers,
    }
    return scene_data(model.config, getattr(scenes, part), scenes.views, **(settings | changes))


def _read(
    config: EvalConfig, model: TwoTower, part: str, advance: Callable[..., object]
) -> tuple[Scenes, list[dict[str, str]]]:
    scenes, skipped = read_scenes(model, _data(config, model, part), config.device, advance)
    with torch.no_grad():
        return (with_transformer(model, scenes) if config.protocol.transformer else scenes), skipped


def _tuned(
    config: EvalConfig, model: TwoTower, advance: Callable[..., object]
) -> tuple[PairHead, list[dict[str, str]]]:
    """A head trained together with the model (in place), on draws that are new in every pass."""
    task: SceneTaskConfig = config.protocol
    fit = task.fit
    reader = SceneReader(_data(config, model, "train", batch_size=fit.batch_size), endless=True)
    steps = max(1, reader.draws // fit.batch_size)

    def batches() -> Generator[Scenes, None, None]:
        for scenes in islice(reader.read(model, config.device), steps * fit.passes):
            yield with_transformer(model, scenes) if task.transformer else scenes
            advance(scenes.draws)

    with torch.random.fork_rng():
        torch.manual_seed(config.seed)
        width = model.video_tower.feature_dim if model.video_tower else 0
        head = PairHead(width, fit.hidden, fit.dropout).to(config.device)
        generator = torch.Generator().manual_seed(config.seed)
        model.train()
        found = batches()
        try:
            train_head(
                task.name, head, found, fit, steps_per_pass=steps, generator=generator, others=model.parameters()
            )
        finally:
            found.close()
        model.eval()
    return head, reader.skipped
