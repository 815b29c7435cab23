"""report.html of a protocol on 360° video: a few test clips, where views look, and how well the sound fits when turned.

One page without script that loads nothing: pictures, drawings and sound are in it.
"""

from __future__ import annotations

import base64
import dataclasses
import math
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from avssl.data.config import DataConfig
from avssl.data.loader import Loader
from avssl.evaluation.alignment import scores_over_turns
from avssl.files import write_atomic
from avssl.models.two_tower import TwoTower
from avssl.pages import render
from avssl.shards.read import ShardSet
from avssl.spatial.directions import rotation
from avssl.spatial.hear import hear
from avssl.spatial.views import source_positions

VIEWS = 8  # around the horizon, so that a turn by a multiple of 45° takes views to views
FOV_DEG = 75.0
YAWS_DEG = tuple(range(-180, 180, 15))
PITCHES_DEG = (60, 30, 0, -30, -60)
MAP_PX = (960, 480)
CURVE_PX = (960, 260)
MARGIN = 44
_TIE = 1e-6  # scores that differ by less are equal but for rounding
_BORDER = 24  # points along a side of a view's outline


def write_page(
    path: Path,
    name: str,
    model: TwoTower,
    data: DataConfig,
    clips: int,
    metrics: dict[str, float],
    device: torch.device | str = "cpu",
) -> None:
    """Write the page of the first `clips` readable clips that `data` (of `scene_data`) draws from its shards.

    Raises ModelError for a model without aligner, which scores nothing.
    """
    page = render(
        Path(__file__).parent / "scene_page.html.j2",
        name=name,
        metrics=metrics,
        views=VIEWS,
        fov_deg=FOV_DEG,
        map_px=MAP_PX,
        curve_px=CURVE_PX,
        margin=MARGIN,
        blind=data.hearing == "ambisonics",
        clips=[*_cards(model, data, clips, device)],
    )
    write_atomic(path, lambda file: file.write(page.encode()))


def page_views() -> Tensor:
    """The fixed viewpoints [8, 5] of the page, in degrees."""
    azimuth_deg = torch.arange(VIEWS) * (360.0 / VIEWS)
    azimuth_deg = torch.where(azimuth_deg > 180, azimuth_deg - 360, azimuth_deg)
    level = torch.zeros(VIEWS)
    return torch.stack([azimuth_deg, level, level, level + FOV_DEG, level + FOV_DEG], 1)


def page_turns() -> Tensor:
    """The turns of the sound scene [5 * 24, 3, 3], by pitch from top to bottom, then by yaw."""
    pitch, yaw = torch.meshgrid(torch.tensor(PITCHES_DEG).float(), torch.tensor(YAWS_DEG).float(), indexing="ij")
    return rotation(yaw, pitch).flatten(0, 1)


def _cards(model: TwoTower, data: DataConfig, clips: int, device: torch.device | str) -> list[dict[str, Any]]:
    data = dataclasses.replace(data, batch_size=1, draws_per_row=1, sampling="even", turn=None, workers=0)
    loader = Loader(data, endless=False)
    found = []
    for batch in islice(loader, clips):
        height, width = batch["video_size_px"][0].tolist()
        frames, sound = batch["video"][0, 0, :, :height, :width], batch["audio"][0, 0]
        place = (frames.to(device), sound.to(device), page_views().to(device), page_turns().to(device))
        scores = scores_over_turns(model, data, *place).cpu().view(len(PITCHES_DEG), len(YAWS_DEG)).numpy()
        row = int(batch["row"][0])
        record = loader.shards.record(row)
        found.append(
            {
                "source": record["source"],
                "label": record["label"],
                "row": row,
                "start_s": record["start_s"],
                "picture": _picture(frames),
                "sound": _sound(loader.shards, row, data),
                "views": [outline(view) for view in page_views()],
                "curve": curve_plot(scores[PITCHES_DEG.index(0)]),
                "cells": heat_cells(scores),
            }
        )
    loader.close()
    return found


def _picture(frames: Tensor) -> str:
    from avssl.media import encode_jpeg

    return _data_uri("image/jpeg", encode_jpeg(np.ascontiguousarray(frames[len(frames) // 2].numpy())))


def _sound(shards: ShardSet, row: int, data: DataConfig) -> str:
    """The whole clip as one hears it who looks ahead: left and right, as FLAC."""
    from avssl.media import decode_flac, encode_flac

    assert data.audio is not None
    scene, rate_hz = decode_flac(shards.read(row, "flac"))
    ahead = torch.tensor([[[0.0, 0.0, 0.0, 90.0, 90.0]]])
    ears = hear(torch.from_numpy(np.ascontiguousarray(scene))[None], ahead, hearing="stereo")[0, 0]
    loudest = ears.abs().max().clamp(min=1e-6)
    return _data_uri("audio/flac", encode_flac((0.9 * ears / loudest).numpy(), rate_hz))


def _data_uri(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def outline(view_deg: Tensor) -> dict[str, Any]:
    """The border of a view on a picture of MAP_PX, as polylines cut where they cross the seam, and its name."""
    source_px = torch.tensor([[MAP_PX[1], MAP_PX[0]]])
    grid = source_positions(view_deg[None, None], (_BORDER, _BORDER), source_px)[0, 0]
    border = torch.cat([grid[0], grid[1:, -1], grid[-1].flip(0)[1:], grid[:, 0].flip(0)[1:]]).double()
    points = border * torch.tensor(MAP_PX)
    lines: list[list[Tensor]] = [[points[0]]]
    for before, point in pairwise(points):
        if (point[0] - before[0]).abs() > MAP_PX[0] / 2:
            lines.append([])
        lines[-1].append(point)
    middle = ((0.5 - view_deg[0] / 360) % 1 * MAP_PX[0], (0.5 - view_deg[1] / 180) * MAP_PX[1])
    return {
        "lines": [" ".join(f"{x:.1f},{y:.1f}" for x, y in line) for line in lines],
        "x": round(float(middle[0]), 1),
        "y": round(float(middle[1]), 1),
        "azimuth_deg": float(view_deg[0]),
    }


def curve_plot(scores: np.ndarray) -> dict[str, Any]:
    """Scores over YAWS_DEG as points of a picture of CURVE_PX with its axes; yaw grows to the left, as in pictures."""
    width, height = CURVE_PX
    low, high = float(scores.min()), float(scores.max())
    room = max(high - low, 1e-6)

    def x(yaw_deg: float) -> float:
        return round(MARGIN + (width - 2 * MARGIN) * (0.5 - yaw_deg / 360), 1)

    def y(score: float) -> float:
        return round(height - MARGIN - (height - 1.6 * MARGIN) * (score - low) / room, 1)

    around = [*zip(YAWS_DEG, scores.tolist(), strict=True), (180, float(scores[0]))]
    as_is = float(scores[YAWS_DEG.index(0)])
    better = scores > as_is + _TIE
    best = int(scores.argmax()) if better.any() else YAWS_DEG.index(0)
    digits = min(6, max(2, 1 - math.floor(math.log10(room))))
    return {
        "line": " ".join(f"{x(yaw)},{y(score)}" for yaw, score in around),
        "x_ticks": [{"x": x(yaw), "text": f"{yaw:+d}°" if yaw else "0°"} for yaw in (180, 90, 0, -90, -180)],
        "y_ticks": [{"y": y(score), "text": f"{score:.{digits}f}"} for score in (low, (low + high) / 2, high)],
        "zero": x(0),
        "best": {"x": x(YAWS_DEG[best]), "y": y(float(scores[best])), "yaw_deg": YAWS_DEG[best]},
        "as_is": as_is,
        "rank": int(better.sum()) + 1,
        "of": len(scores),
    }


def heat_cells(scores: np.ndarray) -> list[dict[str, Any]]:
    """A cell for each turn [pitch, yaw] on a picture of MAP_PX: where the front of the sound goes, and how well it
    fits, from 0 (the worst of all) to 1."""
    low, room = float(scores.min()), max(float(scores.max() - scores.min()), 1e-6)
    across, down = MAP_PX[0] / len(YAWS_DEG), MAP_PX[1] * (PITCHES_DEG[0] - PITCHES_DEG[1]) / 180
    cells = []
    for pitch_deg, line in zip(PITCHES_DEG, scores.tolist(), strict=True):
        for yaw_deg, score in zip(YAWS_DEG, line, strict=True):
            left = (0.5 - yaw_deg / 360) % 1 * MAP_PX[0] - across / 2
            cell = {
                "y": round((0.5 - pitch_deg / 180) * MAP_PX[1] - down / 2, 1),
                "width": round(across + 0.4, 1),  # a little wider, so that no seams show
                "height": round(down + 0.4, 1),
                "share": round((score - low) / room, 3),
                "text": f"yaw {yaw_deg}°, pitch {pitch_deg}°: {score:.3f}",
            }
            cells.append(cell | {"x": round(left, 1)})
            if left < 0:  # the other half of the cell that lies on the seam
                cells.append(cell | {"x": round(left + MAP_PX[0], 1)})
    return cells
