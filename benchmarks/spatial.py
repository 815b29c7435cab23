"""Flat views of equirectangular clips: views a second on one thread, beside three ways to write it.

    python -m benchmarks.spatial [--frames 8] [--views 4] [--size 112] [--sources 512x1024 320x640] [--rounds 7]

`avssl` reads the four pixels around each position out of the uint8 source, in a compiled loop. `torch gather` is its
general form, for other devices and for gradients. `grid_sample` is the usual torch way: the clip as float planes, one
call for all views. The loops over frames are NumPy: `numpy per frame` in its own double precision with the positions
worked out once a view, `numpy, all per frame` with those too for each frame, `numpy, tuned` with rows, columns and
single precision weights once a view. All give the same pictures to one level (checked). Methods run in turn, `--rounds`
times; the median CPU time counts.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from statistics import median
from typing import Any

import numpy as np
import torch

from avssl.spatial.config import ViewConfig
from avssl.spatial.draw import draw_views
from avssl.spatial.views import see, source_positions
from benchmarks.common import markdown_table, write_result

CHECKED_WITHIN = 1.01  # of 255: rounding may fall either way


def by_avssl(video: torch.Tensor, views: torch.Tensor, size: int) -> torch.Tensor:
    return see(video, views, (size, size))


def by_grid_sample(video: torch.Tensor, views: torch.Tensor, size: int) -> torch.Tensor:
    """Float planes with a column repeated at either side, so that the seam wraps."""
    batch, frames, height, width, channels = video.shape
    source_px = torch.tensor([[height, width]] * batch)
    positions = source_positions(views, (size, size), source_px).flatten(1, 2)
    x = (positions[..., 0] * width + 1) / (width + 2)
    planes = video.permute(0, 1, 4, 2, 3).reshape(batch, frames * channels, height, width).float()
    planes = torch.cat([planes[..., -1:], planes, planes[..., :1]], -1)
    grid = torch.stack([x, positions[..., 1]], -1) * 2 - 1
    found = torch.nn.functional.grid_sample(planes, grid, padding_mode="border", align_corners=False)
    found = found.view(batch, frames, channels, views.shape[1], size, size)
    return found.round().to(torch.uint8).permute(0, 3, 1, 4, 5, 2)


def by_gather(video: torch.Tensor, views: torch.Tensor, size: int) -> torch.Tensor:
    return see(video, views, (size, size), dtype=torch.float32).round().to(torch.uint8)


def by_tuned_numpy(video: torch.Tensor, views: torch.Tensor, size: int) -> torch.Tensor:
    clip, out = video[0].numpy(), np.empty((views.shape[1], video.shape[1], size, size, 3), np.uint8)
    for k, view in enumerate(views[0].numpy()):
        x, y = (place.astype(np.float32) for place in numpy_places(view, size, *clip.shape[1:3]))
        taps = numpy_taps(x, y, *clip.shape[1:3])
        for t, picture in enumerate(clip):
            out[k, t] = np.rint(sum(picture[rows, columns] * weight for rows, columns, weight in taps))
    return torch.from_numpy(out)[None]


def by_numpy(video: torch.Tensor, views: torch.Tensor, size: int, again: bool = False) -> torch.Tensor:
    clip, out = video[0].numpy(), np.empty((views.shape[1], video.shape[1], size, size, 3), np.uint8)
    for k, view in enumerate(views[0].numpy()):
        x, y = numpy_places(view, size, *clip.shape[1:3])
        for t, picture in enumerate(clip):
            if again and t:
                x, y = numpy_places(view, size, *clip.shape[1:3])
            taps = numpy_taps(x, y, *picture.shape[:2])
            out[k, t] = np.rint(sum(picture[rows, columns] * weight for rows, columns, weight in taps))
    return torch.from_numpy(out)[None]


def numpy_places(view: np.ndarray, size: int, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Column and row in px of each pixel of a view, written from methods C.3."""
    azimuth, elevation, _, across, down = np.deg2rad(view.astype(np.float64))
    axis = 2 * (np.arange(size) + 0.5) / size - 1
    u, t = np.meshgrid(axis * np.tan(across / 2), axis * np.tan(down / 2))
    rho, l0 = np.hypot(u, t), -elevation
    angle = np.arctan(rho)
    lat = np.arcsin(np.cos(angle) * np.sin(l0) + t * np.sin(angle) * np.cos(l0) / rho)
    side = u * np.sin(angle)
    lon = np.arctan2(side, rho * np.cos(l0) * np.cos(angle) - t * np.sin(l0) * np.sin(angle)) - azimuth
    return (0.5 + lon / (2 * np.pi)) * width - 0.5, np.clip((0.5 + lat / np.pi) * height - 0.5, 0, height - 1)


def numpy_taps(x: np.ndarray, y: np.ndarray, height: int, width: int) -> list[tuple[np.ndarray, ...]]:
    """Rows, columns and weights of the four pixels around each place."""
    left, top = np.floor(x).astype(int), np.floor(y).astype(int)
    across, down = x - left.astype(x.dtype), y - top.astype(y.dtype)
    return [
        (np.minimum(top + i, height - 1), (left + j) % width, (low * right)[..., None])
        for i, low in ((0, 1 - down), (1, down))
        for j, right in ((0, 1 - across), (1, across))
    ]


METHODS: dict[str, Callable[[torch.Tensor, torch.Tensor, int], torch.Tensor]] = {
    "avssl": by_avssl,
    "torch gather": by_gather,
    "grid_sample": by_grid_sample,
    "numpy, tuned": by_tuned_numpy,
    "numpy per frame": by_numpy,
    "numpy, all per frame": lambda video, views, size: by_numpy(video, views, size, again=True),
}


def measure(video: torch.Tensor, views: torch.Tensor, size: int, rounds: int) -> dict[str, list[float]]:
    ours = by_avssl(video, views, size).int()
    for name, method in METHODS.items():
        off = (method(video, views, size).int() - ours).abs().max().item()
        assert off <= CHECKED_WITHIN, f"{name} differs by {off} levels"
    times_s: dict[str, list[float]] = {name: [] for name in METHODS}
    for _ in range(rounds):
        for name, method in METHODS.items():
            method(video, views, size)  # not timed: it finds the caches as the method before left them
            started = time.process_time()
            method(video, views, size)
            times_s[name].append(time.process_time() - started)
    return times_s


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--frames", type=int, default=8)
    parser.add_argument("--views", type=int, default=4)
    parser.add_argument("--size", type=int, default=112, help="side of a view in px")
    parser.add_argument("--sources", nargs="+", default=["512x1024", "320x640"], help="height x width in px")
    parser.add_argument("--rounds", type=int, default=7)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    random = np.random.default_rng(0)
    drawn = draw_views(random, ViewConfig(views=arguments.views))["view_deg"]
    results: dict[str, Any] = {}
    for source in arguments.sources:
        height, width = map(int, source.split("x"))
        coarse = torch.from_numpy(random.uniform(0, 255, (arguments.frames, 3, height // 16, width // 16)))
        smooth = torch.nn.functional.interpolate(coarse, size=(height, width), mode="bilinear")
        video = smooth.permute(0, 2, 3, 1).round().to(torch.uint8)[None].contiguous()
        times_s = measure(video, torch.from_numpy(drawn)[None], arguments.size, arguments.rounds)
        speeds = {name: arguments.views / median(times) for name, times in times_s.items()}
        rows = [[name, speed, speeds["avssl"] / speed] for name, speed in speeds.items()]
        print(f"{arguments.views} views of {arguments.frames} x {arguments.size}² from {source}, one thread")
        print(markdown_table(["method", "views/s", "avssl is faster by"], rows))
        results[source] = {
            "views_per_s": speeds,
            "avssl_over": {name: speeds["avssl"] / speed for name, speed in speeds.items() if name != "avssl"},
            "cpu_s": times_s,
        }
    config = {name: getattr(arguments, name) for name in ("frames", "views", "size", "rounds")}
    print(write_result("spatial", {"config": config, "sources": results}))


if __name__ == "__main__":
    main()
