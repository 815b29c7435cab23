"""The real clip with known directions: a chart that names three sources, a piano on the left (azimuth 90°), a voice on
the right (-90°) and gulls above (elevation 90°), all sounding together.

    python -m eval.alignment.chart       what a beam toward each direction picks up: eval/results/alignment_chart.json

Its picture is a drawing: three yellow discs with words on a grid. Nothing in it looks like what sounds.
"""

from __future__ import annotations

import functools
import os
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from avssl.cli.common import Parser, run
from avssl.environment import environment
from avssl.errors import UsageError
from avssl.media import open_media
from avssl.spatial.ambisonics import project
from avssl.spatial.directions import direction
from avssl.spatial.formats import to_ambix
from benchmarks.common import markdown_table
from eval.alignment.scenes import FPS, RATE_HZ, Level, Scenes, power
from eval.robustness.summary import Results, write_results

VARIABLE = "AVSSL_MEDIA"
RESULT = Path("eval/results/alignment_chart.json")
SOURCES = {"piano": (90.0, 0.0), "voice": (-90.0, 0.0), "gulls": (0.0, 90.0)}  # azimuth and elevation in degrees
TRAIN_SHARE = 0.6
_SHORT_SIDE_PX = 80


class Chart(NamedTuple):
    """The first part of the clip and the rest, a scene each."""

    train: Scenes
    held_out: Scenes


def path() -> Path | None:
    """Where the clip is; None where $AVSSL_MEDIA does not name the folder of media."""
    if not (media := os.environ.get(VARIABLE)):
        return None
    return next(iter(sorted((Path(media) / "spatial").glob("chart*.mp4"))), None)


@functools.lru_cache(maxsize=1)
def load_chart() -> Chart | None:
    """The clip as scenes, normalised by its own level; None where it is not there."""
    if (clip := path()) is None:
        return None
    with open_media(clip) as media:
        assert media.info.video is not None
        frames = int(min(media.info.video.duration_s, media.info.duration_s) * FPS)
        video = media.frames_at(np.arange(frames) / FPS, short_side_px=_SHORT_SIDE_PX).data
        sound = media.audio_between(0.0, frames / FPS, rate_hz=RATE_HZ, channels="all").samples
    ambix = to_ambix(torch.from_numpy(sound), "youtube").numpy()
    cut = round(TRAIN_SHARE * frames)
    border = round(cut / FPS * RATE_HZ)
    parts = [power(part)[None] for part in (ambix[:, :border], ambix[:, border:])]
    level = Level.of(parts[0])
    return Chart(Scenes(video[None, :cut], parts[0], level), Scenes(video[None, cut:], parts[1], level))


def beams(ambix: torch.Tensor) -> torch.Tensor:
    """How a beam [3] toward each source correlates with each source [3], as the sound field has them: with sources at
    these directions alone, W, Y and Z are sums and differences of the three, and can be solved for them."""
    w, y, z, _ = ambix
    sources = torch.stack([(w - z + y) / 2, (w - z - y) / 2, z])
    toward = torch.stack([direction(torch.tensor(a), torch.tensor(e)) for a, e in SOURCES.values()])
    heard = project(ambix, toward)
    return torch.nn.functional.cosine_similarity(heard[:, None], sources[None], dim=-1)


def main(argv: list[str]) -> int:
    Parser(prog="python -m eval.alignment.chart", description=(__doc__ or "").splitlines()[0]).parse_args(argv)
    if (clip := path()) is None:
        raise UsageError(f"the chart clip is not there; set {VARIABLE} to the folder of media")
    with open_media(clip) as media:
        sound = media.audio_between(0.0, media.info.duration_s, rate_hz=RATE_HZ, channels="all").samples
    ambix = to_ambix(torch.from_numpy(sound), "youtube")
    w, y, z, x = ambix.square().mean(1).tolist()
    tree = {
        "environment": environment(),
        "power_of_y_and_z_over_w": (y + z) / w,
        "power_of_x_over_w": x / w,
        "runs": [
            {"world": "chart", "method": name, "seed": 0, "end": dict(zip(SOURCES, row.tolist(), strict=True))}
            for name, row in zip(SOURCES, beams(ambix), strict=True)
        ],
    }
    write_results(RESULT, tree)
    print(beam_table(Results(tree)))
    return 0


def beam_table(results: Results) -> str:
    """How each beam correlates with each source."""
    rows = [[f"toward the {run['method']}", *(f"{x:.2f}" for x in run["end"].values())] for run in results.tree["runs"]]
    return markdown_table(["beam", *SOURCES], rows)


if __name__ == "__main__":
    sys.argv[0] = "eval.alignment.chart"
    run(main)
