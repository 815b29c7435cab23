"""Flat (gnomonic) views of equirectangular clips: all viewpoints of a batch at once, wrapping at the seam.

A viewpoint is five numbers in degrees, [..., 5]: azimuth and elevation of its centre, roll, horizontal and vertical
field of view (what `avssl.spatial.draw.draw_views` draws). Sampling is bilinear: longitude wraps, latitude is clamped.

Only the four pixels that each value needs are read. `torch.nn.functional.grid_sample` would have to turn the whole
source into float planes first, which costs more than the sampling, and cannot wrap. uint8 clips in main memory go
through a compiled loop (`remap_cpu`), everything else through the torch code here.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from avssl.errors import UsageError
from avssl.spatial.config import Variant
from avssl.spatial.directions import picture_position, rotation
from avssl.spatial.remap_cpu import remap

_VALUES_AT_ONCE = 1 << 22  # bounds the memory of what is being computed, per source clips processed together


def see(
    video: Tensor,
    views: Tensor,
    size_px: tuple[int, int],
    *,
    flips: Tensor | None = None,
    source_px: Tensor | None = None,
    projection: Variant = "corrected",
    dtype: torch.dtype = torch.uint8,
) -> Tensor:
    """What each of K viewpoints shows of each clip.

    video: RGB [B, T, H, W, C], or stacked yuv420p planes [B, T, H*3/2, W]; uint8 or float. views [B, K, 5] in degrees.
    size_px: (height, width) of a view, even for planes. flips [B, K] bool mirrors left and right. source_px [B, 2]:
    height and width in px of pictures that do not fill theirs (default: all do).

    Returns [B, K, T, h, w, C], or planes [B, K, T, h*3/2, w], of `dtype`: uint8 is rounded, a floating type is not.
    Differentiable in a float video, and in the views. Raises UsageError for shapes that do not fit.
    """
    planes = video.ndim == 4
    if video.ndim not in (4, 5) or views.ndim != 3 or views.shape[-1] != 5 or len(views) != len(video):
        raise UsageError(
            f"views: expected video [B, T, H, W, C] or planes [B, T, H*3/2, W] with views [B, K, 5], "
            f"got {list(video.shape)} with {list(views.shape)}"
        )
    height, width = (video.shape[2] * 2 // 3, video.shape[3]) if planes else video.shape[2:4]
    if source_px is None:
        source_px = torch.tensor([height, width], device=video.device).expand(len(video), 2)
    if planes and any(side % 2 for side in (*size_px, height, width)):
        raise UsageError(f"views: yuv420p planes need even sizes, not {height}x{width} to {size_px[0]}x{size_px[1]}")

    def sample(pictures: Tensor, scale: int) -> Tensor:
        size = (size_px[0] // scale, size_px[1] // scale)
        positions = source_positions(views, size, source_px, flips=flips, projection=projection)
        return sample_sphere(pictures, positions, source_px // scale, projection=projection, dtype=dtype)

    if not planes:
        return sample(video, 1)
    flat, area = video.flatten(2), height * width
    light = sample(flat[..., :area].unflatten(-1, (height, width, 1)), 1)
    colours = (part.unflatten(-1, (height // 2, width // 2, 1)) for part in flat[..., area:].chunk(2, -1))
    parts = [light, *(sample(colour, 2) for colour in colours)]
    return torch.cat([part.flatten(3) for part in parts], -1).unflatten(-1, (size_px[0] * 3 // 2, size_px[1]))


def source_positions(
    views: Tensor,
    size_px: tuple[int, int],
    source_px: Tensor,
    *,
    flips: Tensor | None = None,
    projection: Variant = "corrected",
) -> Tensor:
    """Where on the source each pixel of each view lies: (x, y) [B, K, h, w, 2], each in [0, 1] (methods C.3).

    Other arguments as for `see`. A pixel is the ray (1, -u, -t) of the view's own frame, u to the right and
    t down on the tangent plane: u = (2 (c + ½) / w - 1) tan(fov / 2). Released: u = (2 c / w - 1) fov / 2,
    fov in radians.
    """
    azimuth_deg, elevation_deg, roll_deg, *fov_deg = views.unbind(-1)
    across, down = (fov.deg2rad() / 2 for fov in fov_deg)
    corner = 0.0 if projection == "released" else 0.5
    if projection == "released":
        source_height, source_width = source_px.to(views)[:, :, None].unbind(1)
        azimuth_deg = 180 - ((0.5 - azimuth_deg / 360) * source_width).round() / source_width * 360
        down = down * (source_width / source_height / 2)
    else:
        across, down = across.tan(), down.tan()
    rows, columns = (_span(side, corner, views) for side in size_px)
    u, t = across[..., None] * columns, down[..., None] * rows
    if flips is not None:
        u = torch.where(flips[..., None], u.flip(-1), u)
    front, left, up = rotation(azimuth_deg, elevation_deg, roll_deg).unbind(-1)  # each [B, K, 3]
    along = front[..., None] - left[..., None] * u[..., None, :]  # [B, K, 3, w]; a row adds its own share
    rays = along[..., None, :] - (up[..., None] * t[..., None, :])[..., None]
    return picture_position(rays.movedim(2, -1))


def _span(side: int, corner: float, like: Tensor) -> Tensor:
    """-1 to 1 over `side` pixels."""
    return (torch.arange(side, device=like.device, dtype=like.dtype) + corner) * (2 / side) - 1


def sample_sphere(
    pictures: Tensor,
    positions: Tensor,
    source_px: Tensor,
    *,
    projection: Variant = "corrected",
    dtype: torch.dtype = torch.uint8,
) -> Tensor:
    """Bilinear values of equirectangular pictures [B, T, H, W, C] at positions (x, y) [B, ..., 2].

    source_px [B, 2]: height and width of each picture. Pixel centres are at half numbers (released: at whole ones).
    Returns [B, K, T, h, w, C] of `dtype` for positions [B, K, h, w, 2].
    """
    corner = 0.0 if projection == "released" else 0.5
    if pictures.device.type == "cpu" and pictures.dtype == dtype == torch.uint8:
        return remap(pictures, positions, source_px, corner)
    batch, frames, _, stride, channels = pictures.shape  # clips may be narrower than `stride`
    _, views, *size = positions.shape[:-1]
    values = math.prod(size) * views * channels * frames
    clips = max(1, _VALUES_AT_ONCE // values)
    flat = pictures.flatten(2)
    done = []
    for start in range(0, batch, clips):
        part = slice(start, start + clips)
        corners = _corners(positions[part].flatten(1, -2), source_px[part], stride, channels, corner)
        mixed = _mix(flat[part], corners)
        if not dtype.is_floating_point:
            mixed = mixed.round()  # convex weights: never outside the source's own range
        done.append(mixed.to(dtype).view(-1, frames, views, *size, channels).transpose(1, 2))
    return torch.cat(done)


def _corners(
    positions: Tensor, source_px: Tensor, stride: int, channels: int, corner: float
) -> list[tuple[Tensor, Tensor]]:
    """For each of the four pixels around positions [b, n, 2]: its values' places in a flat picture [b, n * C] and their
    weights [b, n * C]."""
    height, width = source_px[:, :1], source_px[:, 1:]
    x = positions[..., 0] * width - corner
    y = (positions[..., 1] * height - corner).clamp(min=0).minimum(height - 1.0)
    left, top = x.floor(), y.floor()
    right_share, low_share = x - left, y - top
    columns = [(left.long() + step) % width * channels for step in (0, 1)]
    rows = [(top.long() + step).minimum(height - 1) * (stride * channels) for step in (0, 1)]
    shares = [(1 - right_share, right_share), (1 - low_share, low_share)]
    channel = torch.arange(channels, device=positions.device)
    found = []
    for down in (0, 1):
        for across in (0, 1):
            places = (rows[down] + columns[across])[..., None] + channel
            weights = (shares[1][down] * shares[0][across])[..., None].expand(places.shape)
            found.append((places.flatten(1), weights.flatten(1)))
    return found


def _mix(flat: Tensor, corners: list[tuple[Tensor, Tensor]]) -> Tensor:
    """The weighted sum [b, T, n] of values of flat pictures [b, T, H * W * C]."""
    total: Tensor | None = None
    for places, weights in corners:
        values = flat.gather(-1, places[:, None].expand(-1, flat.shape[1], -1)).to(weights.dtype)
        weights = weights[:, None]
        total = values * weights if total is None else total.addcmul_(values, weights)
    assert total is not None
    return total
