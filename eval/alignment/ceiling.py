"""Is the information there at all? What the sound of a view tells of what the view shows, learned with labels.

    python -m eval.alignment.ceiling eval/alignment/full.yaml     writes eval/results/alignment_ceiling.json

The study's sound tower, trained to say which classes are within a view (the truth is known) from what is heard there:
no picture, no contrast, no curriculum. Where this fails, alignment cannot be learned by any objective.
"""

from __future__ import annotations

import sys
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from avssl.cli.common import Parser, run
from avssl.environment import environment
from avssl.rng import sample_generator
from avssl.spatial.hear import to_view
from avssl.synthetic.scene360_objects import draw_scene360
from eval.alignment.learn import view_config
from eval.alignment.scenes import FPS, Scenes
from eval.alignment.study import Hearing, Study, Training, World
from eval.alignment.towers import SceneAudio
from eval.alignment.views import BEFORE, heard, views_of
from eval.alignment.worlds import DURATION_S, HELD_OUT_SEED, config_of, load, render
from eval.robustness.measure import auroc
from eval.robustness.runner import one_thread
from eval.robustness.summary import Results, write_results

RESULT = Path("eval/results/alignment_ceiling.json")
HEARINGS: dict[str, tuple[Hearing, slice]] = {  # name -> hearing, and which of its channels
    "omni": ("ambisonics", slice(0, 1)),
    "stereo": ("stereo", slice(None)),
    "mono": ("mono", slice(None)),
    "ambisonics": ("ambisonics", slice(None)),
    "tetrahedral": ("tetrahedral", slice(None)),
}
LABELS = {
    "omni": "W alone: from all around",
    "stereo": "stereo: left and right beam",
    "mono": "mono: front beam",
    "ambisonics": "W Y Z X",
    "tetrahedral": "four beams",
}
SEEDS, STEPS, BATCH, LR = 3, 400, 256, 2e-3
_DRAWS = 8  # of each scene
_AT_ONCE = 100


def main(argv: list[str]) -> int:
    parser = Parser(prog="python -m eval.alignment.ceiling", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("study", metavar="STUDY.yaml", help="its first world and its views are taken")
    parser.add_argument("--work", default="build/alignment", help="where scenes are kept (default: %(default)s)")
    args = parser.parse_args(argv)
    study = Study.read(args.study)
    world, started_s = study.worlds[0], time.monotonic()
    with ProcessPoolExecutor(2, get_context("spawn"), initializer=one_thread) as pool:
        render(world, Path(args.work) / "worlds", pool)
    one_thread()
    parts = [
        examples(scenes, whereabouts(world, seed, len(scenes)), study.training)
        for scenes, seed in zip(load(world, Path(args.work) / "worlds"), (0, HELD_OUT_SEED), strict=True)
    ]
    runs = [
        {"world": world.name, "method": name, "seed": seed, "end": {"auc": told(parts, name, seed)}}
        for name in HEARINGS
        for seed in range(SEEDS)
    ]
    shown = parts[1][1]
    tree = {
        "environment": environment(),
        "wall_s": round(time.monotonic() - started_s, 1),
        "classes_a_view": float(shown.sum(1).mean()),
        "empty_views": float((shown.sum(1) == 0).float().mean()),
        "study": {
            "methods": [{"name": name, "label": label} for name, label in LABELS.items()],
            "worlds": [{"name": world.name, "label": world.label}],
        },
        "runs": runs,
    }
    write_results(RESULT, tree)
    for line in Results(tree).lines(("auc",)):
        print(line)
    return 0


def whereabouts(world: World, seed: int, scenes: int) -> np.ndarray:
    """Unit vectors [N, classes, T, 3] from the viewer to the middle of each class's object; NaN where it is not."""
    config = config_of(world, seed)
    times_s = np.arange(round(DURATION_S * FPS)) / FPS
    found = np.full((scenes, world.classes, len(times_s), 3), np.nan, np.float32)
    for scene in range(scenes):
        for each in draw_scene360(config, scene).objects:
            found[scene, each.label] = each.motion(times_s)[0]
    return found


def examples(scenes: Scenes, places: np.ndarray, training: Training) -> tuple[dict[str, Tensor], Tensor]:
    """What is heard from random views under every name of HEARINGS [M, C, time, BANDS], and which classes have their
    middle within the view [M, classes]."""
    config = view_config(training, 1)
    config.flip = 0.0
    sounds: dict[str, list[Tensor]] = {name: [] for name in HEARINGS}
    shown = []
    for numbers in torch.arange(len(scenes) * _DRAWS).split(_AT_ONCE):
        rows = [number % len(scenes) for number in numbers.tolist()]
        random = sample_generator(0, int(numbers[0]), len(scenes))
        looks = [views_of(scenes, random, config) for _ in rows]
        for name, (hearing, channels) in HEARINGS.items():
            sounds[name].append(heard(scenes, rows, looks, hearing)[:, 0, channels])
        for row, look in zip(rows, looks, strict=True):
            there = torch.from_numpy(places[row, :, look.frame[0] + BEFORE])
            shown.append(within(torch.from_numpy(look.view_deg[0]), there))
    return {name: torch.cat(some) for name, some in sounds.items()}, torch.stack(shown).float()


def within(view_deg: Tensor, places: Tensor) -> Tensor:
    """Which directions [N, 3] lie within a view [5]; NaN does not."""
    x, y, z = (places @ to_view(view_deg).mT).unbind(-1)
    across, down = (view_deg[3:].deg2rad() / 2).tan()
    return (x > 0) & ((y / x).abs() < across) & ((z / x).abs() < down)


def told(parts: list[tuple[dict[str, Tensor], Tensor]], name: str, seed: int) -> float:
    """Train on the first part; mean over classes of the AUROC on the second."""
    (train, train_shown), (test, test_shown) = ((sounds[name], shown) for sounds, shown in parts)
    torch.manual_seed(seed)
    tower = SceneAudio(train.shape[1])
    model = nn.Sequential(tower, nn.Linear(tower.feature_dim, train_shown.shape[1]))
    optimizer = torch.optim.Adam(model.parameters(), LR, weight_decay=1e-4)
    for _ in range(STEPS):
        chosen = torch.randint(len(train), (BATCH,))
        loss = F.binary_cross_entropy_with_logits(model(train[chosen]), train_shown[chosen])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    model.eval()
    with torch.no_grad():
        scores = model(test)
    return float(np.mean([auroc(scores[:, c], test_shown[:, c] > 0) for c in range(scores.shape[1])]))


if __name__ == "__main__":
    sys.argv[0] = "eval.alignment.ceiling"
    run(main)
