"""Seconds and memory of `avssl-embed` per minute of video: python -m benchmarks.embed [--videos FILE...] [--model M].

Without `--videos`, files are rendered: 640x360 at 25 fps, H.264 with a key frame every 250 pictures, AAC stereo at
48 kHz, of one and of ten minutes. Without `--model`, the tiny towers at random weights (speed does not depend on them).
Every measurement is a process of its own, so its peak memory is that of the job, imports included; the model is
loaded before the clock starts. "decode" reads the same pictures and sound and embeds nothing: the floor.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.common import markdown_table, write_result

WINDOW_S, HOP_S = 2.0, 1.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--videos", nargs="+", type=Path, help="files to embed instead of rendered ones")
    parser.add_argument("--model", help="model folder or bundled name")
    parser.add_argument("--minutes", type=int, nargs="+", default=[1, 10], help="lengths of the rendered files")
    parser.add_argument("--rounds", type=int, default=3, help="of which the median counts")
    parser.add_argument("--measure", nargs=3, help=argparse.SUPPRESS)  # JOB MODEL FILE: the process that is measured
    arguments = parser.parse_args()
    if arguments.measure:
        print(json.dumps(measure(*arguments.measure)))
        return
    with tempfile.TemporaryDirectory() as folder:
        model = arguments.model or str(save_random_model(Path(folder) / "model"))
        files = arguments.videos or [render(Path(folder) / f"{n} min.mp4", n) for n in arguments.minutes]
        results = []
        for file in files:
            for job in ("decode", "embed"):
                rounds = [measured(job, model, file) for _ in range(arguments.rounds)]
                results.append({"file": file.name, "job": job, "rounds": rounds, **median_of(rounds)})
    header = ["file", "minutes", "job", "s per minute", "CPU s per minute", "times real time", "peak MiB", "rows"]
    rows = [
        [result[key] for key in ("file", "minutes", "job", "s", "cpu_s", "speed", "peak_mib", "rows")]
        for result in results
    ]
    print(markdown_table(header, rows))
    settings = {"window_s": WINDOW_S, "hop_s": HOP_S, "model": arguments.model or "tiny towers at random weights"}
    print(write_result("embed", {"settings": settings, "results": results}))


def measured(job: str, model: str, file: Path) -> dict[str, float]:
    command = [sys.executable, __file__, "--measure", job, model, str(file)]
    environment = os.environ | {"OMP_WAIT_POLICY": "PASSIVE"}  # as avssl-embed sets it
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, env=environment).stdout)


def median_of(rounds: list[dict[str, float]]) -> dict[str, Any]:
    """The round of median wall time, as figures per minute of video."""
    one = sorted(rounds, key=lambda round_: round_["wall_s"])[len(rounds) // 2]
    minutes = one["duration_s"] / 60
    return {
        "minutes": minutes,
        "s": one["wall_s"] / minutes,
        "cpu_s": one["cpu_s"] / minutes,
        "speed": one["duration_s"] / one["wall_s"],
        "peak_mib": max(round_["peak_mib"] for round_ in rounds),
        "rows": one["rows"],
    }


def measure(job: str, model_name: str, path: str) -> dict[str, float]:
    """Do the job in this process."""
    import resource
    import time

    import avssl
    from avssl.embedding.run import embed_to_file, options_for
    from avssl.embedding.sources import find_units
    from avssl.media import open_media

    model = avssl.load(model_name)
    options = options_for(model, window_s=WINDOW_S, hop_s=HOP_S)
    rows = 0
    wall_s, cpu_s = time.perf_counter(), time.process_time()
    with open_media(path) as media:
        duration_s = media.info.duration_s
        if job == "decode":
            video, audio = model.video_input, model.audio_input
            if media.info.video:
                for _ in media.iter_frames(0.0, video.fps, short_side_px=video.resize_px):
                    pass
            if media.info.audio:
                for _ in media.iter_audio(0.0, rate_hz=audio.rate_hz, channels="mono"):
                    pass
    if job == "embed":
        with tempfile.TemporaryDirectory() as folder:
            rows = embed_to_file(model, find_units([path]), Path(folder) / "out.npz", options).rows
    return {
        "wall_s": time.perf_counter() - wall_s,
        "cpu_s": time.process_time() - cpu_s,
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
        "duration_s": duration_s,
        "rows": rows,
    }


def save_random_model(folder: Path) -> Path:
    from avssl.models.config import ModelConfig, TowerConfig
    from avssl.models.folder import save_model
    from avssl.models.two_tower import TwoTower

    config = ModelConfig(video=TowerConfig("tiny_video"), audio=TowerConfig("tiny_audio"))
    save_model(folder, TwoTower(config), config, card="# random weights\n")
    return folder


def render(path: Path, minutes: int) -> Path:
    """Noise that moves over a gradient, so that the codec has work to do, and noisy stereo sound."""
    import numpy as np

    from avssl.media.encode import MediaWriter

    generator = np.random.default_rng(0)
    fps, rate_hz, height, width = 25, 48000, 360, 640
    ground = np.linspace(0, 255, 2 * width)[None, :, None] * np.array([1, 0.7, 0.4]) * np.ones((height, 1, 1))
    ground = np.clip(ground + generator.normal(0, 12, ground.shape), 0, 255).astype(np.uint8)
    patch = generator.integers(0, 256, (90, 160, 3), dtype=np.uint8)
    with MediaWriter(path) as writer:
        video = writer.add_video((height, width), fps, options={"preset": "veryfast", "g": "250", "crf": "26"})
        sound = writer.add_audio(rate_hz, 2)
        for number in range(minutes * 60 * fps):
            picture = ground[:, number % width : number % width + width].copy()
            top, left = number * 3 % (height - 90), number * 5 % (width - 160)
            picture[top : top + 90, left : left + 160] = patch
            video.write(picture)
            sound.write(generator.normal(0, 0.1, (2, rate_hz // fps)))
    return path


if __name__ == "__main__":
    main()
