"""Rendered 360° clips with ground truth: shapes that move over a panorama and sound from where they are seen.

The picture is equirectangular, the sound first-order ambisonics (conventions of `avssl.spatial.directions`). It is not
real video, whatever photos and sounds it is made of: nothing measured on it says how a model fares on real video.

    write_scenes360(Scene360Config(clips=100, panoramas=("petra.jpg",), sounds="sounds/"), "scenes")

writes `scenes/clips/NNNNNN.mp4` and `scenes/scenes360.jsonl`, one row a clip (`truth_row`), a list that `avssl-shards
build` takes as it is.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

from avssl.files import write_jsonl
from avssl.synthetic.scene360_config import Scene360Config
from avssl.synthetic.scene360_objects import draw_scene360

MANIFEST = "scenes360.jsonl"
TRUTH_STEP_S = 0.25  # between two directions of an object in the manifest
VIDEO_OPTIONS = {"preset": "veryfast", "crf": "23"}
_AAC = {"aac_is": "0", "aac_pns": "0"}  # both would throw phase away, and with it the direction
_AAC_BIT_RATE = 96_000  # of a channel


def render_clip360(config: Scene360Config, clip: int) -> tuple[np.ndarray, np.ndarray]:
    """The clip's frames [T, H, W, 3] uint8 and its sound [4, S] float32 within ±1, ambiX."""
    from avssl.synthetic.scene360_picture import render_picture360
    from avssl.synthetic.scene360_sound import render_sound360

    scene = draw_scene360(config, clip)
    return render_picture360(config, scene), render_sound360(config, scene)


def truth_row(config: Scene360Config, clip: int) -> dict[str, Any]:
    """The clip's line of the manifest. `label` is the class of the first object (null without any); every object has
    its directions every `step_s` seconds, and the times its rendered sounds begin (null for real sounds). `place`: its
    three numbers (`scene360_place`), null without."""
    scene = draw_scene360(config, clip)
    times_s = np.arange(0.0, config.duration_s + 1e-9, TRUTH_STEP_S)
    objects = []
    for each in scene.objects:
        azimuth_deg, elevation_deg = each.angles_deg(times_s)
        objects.append(
            {
                "class": each.name,
                "azimuth_deg": azimuth_deg.round(2).tolist(),
                "elevation_deg": elevation_deg.round(2).tolist(),
                "diameter_deg": round(each.diameter_deg, 2),
                "events_s": each.look.events_within(config.duration_s) if config.sounds is None else None,
            }
        )
    return {
        "path": f"clips/{clip:06d}.mp4",
        "label": scene.objects[0].name if scene.objects else None,
        "rendered": True,
        "clip": clip,
        "projection": "equirectangular",
        "ambisonics": config.ambisonics,
        "panorama": scene.panorama and Path(scene.panorama).name,
        "step_s": TRUTH_STEP_S,
        "objects": objects,
        "decoy": scene.decoy.name if scene.decoy is not None else None,
        "ambience_db": round(scene.ambience_db, 2),
        "place": None if scene.place is None else {key: round(value, 4) for key, value in vars(scene.place).items()},
    }


def write_scenes360(
    config: Scene360Config,
    folder: str | os.PathLike[str],
    *,
    workers: int = 1,
    advance: Callable[[], object] = lambda: None,
) -> list[dict[str, Any]]:
    """Render the clips into `folder` and return the rows of its manifest, which is written last.

    The files are the same for any number of `workers` (processes). `advance` is called after each clip.
    Raises UsageError for a panorama or sound that cannot be read.
    """
    folder = Path(folder)
    (folder / "clips").mkdir(parents=True, exist_ok=True)
    tasks = [(config, clip, folder) for clip in range(config.clips)]
    if workers <= 1:
        for task in tasks:
            _write_clip(task)
            advance()
    else:
        with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
            for _ in pool.map(_write_clip, tasks, chunksize=4):
                advance()
    rows = [truth_row(config, clip) for clip in range(config.clips)]
    write_jsonl(folder / MANIFEST, rows)
    return rows


def _write_clip(task: tuple[Scene360Config, int, Path]) -> None:
    from avssl.media.encode import MediaWriter
    from avssl.synthetic.scene360_sound import as_track

    config, clip, folder = task
    frames, sound = render_clip360(config, clip)
    channels, layout = as_track(sound, config.ambisonics), "5.1" if config.track == "youtube" else "4.0"
    with MediaWriter(folder / f"clips/{clip:06d}.mp4") as writer:
        video = writer.add_video(frames.shape[1:3], config.fps, options=VIDEO_OPTIONS)
        if config.track == "flac":
            audio = writer.add_audio(config.audio_rate_hz, len(channels), codec="flac", layout=layout)
        else:
            bit_rate = _AAC_BIT_RATE * len(channels)
            audio = writer.add_audio(
                config.audio_rate_hz, len(channels), codec="aac", layout=layout, options=_AAC, bit_rate=bit_rate
            )
        done = 0
        for number, picture in enumerate(frames, 1):
            video.write(picture)
            until = round(number / len(frames) * channels.shape[1])
            if until - done >= 4096 or number == len(frames):  # in step, so that the muxer need not hold either back
                audio.write(channels[:, done:until])
                done = until
