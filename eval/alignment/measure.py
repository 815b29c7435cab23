"""What a trained model is worth on held-out scenes: the product's tasks for views, and the score over turns."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from avssl.evaluation.alignment import alignment_scores
from avssl.evaluation.bin_tasks import Task, angle_between_deg, solve
from avssl.evaluation.scene_config import HeadTraining
from avssl.evaluation.scenes import Scenes as Features
from avssl.evaluation.scenes import first_views, with_transformer
from avssl.models.two_tower import TwoTower
from avssl.rng import sample_generator
from avssl.spatial.directions import rotation
from eval.alignment.chart import load_chart
from eval.alignment.learn import view_config
from eval.alignment.measure_names import TURNS_DEG
from eval.alignment.scenes import Scenes
from eval.alignment.study import Hearing, Run
from eval.alignment.views import Draw, heard, seen, views_of

VIEWS = 4
HEAD = HeadTraining(passes=12, batch_size=32, lr=3e-3, drop_at=[9], hidden=128)

ASKED: tuple[tuple[Task, int, str], ...] = (  # task, number of views, features: the paper's and the yaw
    ("avsa_bin", 1, ""),
    ("avsa_bin", VIEWS, ""),
    ("avsa_bin", VIEWS, "_transformer"),
    ("avc_bin", 1, ""),
    ("avc_bin", VIEWS, ""),
    ("avc_bin", VIEWS, "_transformer"),
    ("yaw", VIEWS, ""),
)
HEAD_SHARE = 0.6  # of the held-out scenes, to train heads: the model has not seen these either
_DRAWS = 6  # of each scene
_TURNED = 100  # looks whose sound is turned
_SEED = 7  # of the draws to measure on: the same for all runs
_AT_ONCE = 32


@torch.no_grad()
def measure(model: TwoTower, run: Run, train: Scenes, held_out: Scenes) -> dict[str, Any]:
    """Everything about a model, as plain numbers; shares are 0 to 1. Without predictions some are left out, and of a
    single scene (which has no other) the tasks with heads are."""
    model.eval()
    with_heads = len(held_out) > 1
    border = round(HEAD_SHARE * len(held_out)) if with_heads else 0
    rest = held_out.part(slice(border, None))
    test = features(model, run, rest, _DRAWS)
    fit = features(model, run, held_out.part(slice(0, border)), _DRAWS) if with_heads else test
    found: dict[str, Any] = {}
    kinds = {"": (fit, test)}
    assert model.aligner is not None
    if model.aligner.config.depth is not None:
        found["own_view"] = own_view(model, test)
        if model.aligner.config.depth:
            kinds["_transformer"] = (with_transformer(model, fit), with_transformer(model, test))
    for task, views, kind in ASKED if with_heads else ():
        if kind in kinds:
            first, second = (first_views(part, views) for part in kinds[kind])
            with torch.enable_grad():
                solved = solve(task, first, second, HEAD, seed=run.seed)
            found[f"{task}_{views}{kind}"] = solved.metrics["mean_error_deg" if task == "yaw" else "accuracy"]
    found |= over_turns(model, run, rest)
    if run.world.kind != "chart" and (chart := load_chart()) is not None:
        scenes = Scenes(chart.held_out.video, chart.held_out.power, train.level)
        found |= {f"chart_{key}": value for key, value in over_turns(model, run, scenes).items()}
    return found


def features(model: TwoTower, run: Run, scenes: Scenes, draws: int) -> Features:
    """`draws` random looks at every scene, never mirrored, with the sound as it is and turned by a random yaw."""
    parts = []
    for numbers in torch.arange(len(scenes) * draws).split(_AT_ONCE):
        rows = [number % len(scenes) for number in numbers.tolist()]
        random = sample_generator(_SEED, int(numbers[0]), len(scenes))
        config = view_config(run.training, VIEWS)
        config.flip = 0.0
        looks = [views_of(scenes, random, config) for _ in rows]
        turn_deg = torch.from_numpy(random.uniform(-180, 180, len(rows)).astype(np.float32))
        video = encode(model.video_features, seen(scenes, rows, looks))
        audio, turned = (
            encode(model.audio_features, heard(scenes, rows, looks, run.method.hearing, turns))
            for turns in (None, rotation(turn_deg))
        )
        row = torch.tensor(rows)
        view_deg = torch.from_numpy(np.stack([look.view_deg for look in looks]))
        parts.append(Features(row, row, video, audio, turned, turn_deg, view_deg))
    return Features(*(torch.cat(columns) for columns in zip(*parts, strict=True)))


def own_view(model: TwoTower, test: Features) -> float:
    """Share of views whose prediction is more like their own features than like those of the other views; the mean over
    predicted sound and predicted pictures. Chance is one in `VIEWS`."""
    aligner = model.aligner
    assert aligner is not None
    shares = []
    for name, own, other in (("audio", test.audio, test.video), ("video", test.video, test.audio)):
        predicted = aligner.project_prediction(name, aligner.predict(name, other))  # type: ignore[arg-type]
        targets = aligner.project(name, own)  # type: ignore[arg-type]
        likeness = F.normalize(predicted, dim=-1) @ F.normalize(targets, dim=-1).mT
        shares.append((likeness.argmax(-1) == torch.arange(likeness.shape[-1])).float().mean())
    return float(torch.stack(shares).mean())


def over_turns(model: TwoTower, run: Run, scenes: Scenes) -> dict[str, Any]:
    """What happens to the alignment score when the sound is turned against the picture, or both together.

    score_by_turn: the mean over scenes for each of TURNS_DEG; turn_lowers: share of scenes whose score falls when the
    sound alone is turned by 180°; together_changes: the mean size of the change when picture, sound and views are
    turned by 180° (it should be nothing but rounding); score_yaw_error_deg: mean error of the yaw with the best score.
    """
    config = view_config(run.training, VIEWS)
    config.flip = 0.0
    random = sample_generator(_SEED, 0, 0)
    rows = [number % len(scenes) for number in range(_TURNED)]
    looks = [views_of(scenes, random, config) for _ in rows]
    scores = scores_by_turn(model, run.method.hearing, scenes, rows, looks, TURNS_DEG)
    half = torch.full((len(rows),), 180.0)
    away = [Draw(look.view_deg + np.array([180, 0, 0, 0, 0], np.float32), look.flip, look.frame) for look in looks]
    around = Scenes(np.roll(scenes.video[:_TURNED], scenes.video.shape[3] // 2, 3), scenes.power, scenes.level)
    video = encode(model.video_features, seen(around, rows, away))
    audio = encode(model.audio_features, heard(scenes, rows, away, run.method.hearing, rotation(half)))
    together = torch.cat([alignment_scores(model, v, a[None]) for v, a in zip(video, audio, strict=True)])
    best_deg = torch.tensor(TURNS_DEG, dtype=torch.float32)[scores.argmax(1)]
    return {
        "score_by_turn": scores.mean(0).tolist(),
        "turn_lowers": float((scores[:, TURNS_DEG.index(180)] < scores[:, 0]).float().mean()),
        "together_changes": float((together - scores[:, 0]).abs().mean()),
        "score_yaw_error_deg": float(angle_between_deg(best_deg, torch.zeros(())).mean()),
    }


def scores_by_turn(
    model: TwoTower, hearing: Hearing, scenes: Scenes, rows: list[int], looks: list[Draw], turns_deg: tuple[int, ...]
) -> Tensor:
    """Alignment scores [B, R] of these looks with the sound turned by each yaw."""
    video = encode(model.video_features, seen(scenes, rows, looks))
    audio = torch.stack(
        [
            encode(model.audio_features, heard(scenes, rows, looks, hearing, rotation(torch.full((len(rows),), turn))))
            for turn in map(float, turns_deg)
        ],
        1,
    )  # [B, R, K, D]
    return torch.stack([alignment_scores(model, v, a) for v, a in zip(video, audio, strict=True)])


def encode(tower: Any, inputs: Tensor) -> Tensor:
    """Features [B, K, D] of inputs [B, K, ...]."""
    return tower(inputs.flatten(0, 1)).unflatten(0, inputs.shape[:2])
