"""From the uint8 batch to what towers take, on the batch's device. Pure functions of the batch: every random number
was drawn by the worker and travels in it (`avssl.data.augment`).

With `crop_px` in the batch the picture gets the random resized crop, flip and colour jitter; without, the short side is
resized and the centre cut out. Clips go through in groups: as many as a GPU needs to be busy within bounded memory, or
one at a time on a CPU, whose cache then holds all that is in between.
"""

from __future__ import annotations

from typing import Protocol

import torch

from avssl.data.collate import Batch, split_planes
from avssl.data.viewing import hear_views, see_views
from avssl.spatial.config import ViewConfig
from avssl.spatial.hear import Hearing

_CLIPS_AT_ONCE = {"cpu": 1}  # other devices: 32
_GREY = (0.299, 0.587, 0.114)  # BT.601 luma


class PictureSpec(Protocol):
    """What a video tower expects of a picture (`avssl.models.config.VideoInput` has these fields)."""

    size_px: int
    resize_px: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


def to_device(batch: Batch, device: torch.device | str) -> Batch:
    """The batch with its tensors on `device`; from pinned memory the copy runs beside other work."""
    return {
        name: value.to(device, non_blocking=True) if isinstance(value, torch.Tensor) else value
        for name, value in batch.items()
    }


@torch.no_grad()
def prepare(batch: Batch, spec: PictureSpec, views: ViewConfig | None = None, hearing: Hearing = "ambisonics") -> Batch:
    """The batch with `video` as float32 [B, K, 3, T, H, W], normalised, H = W = `spec.size_px`, and `audio` times
    its gain. Other entries are passed on; the input is not changed.

    views: as the batch was drawn with. Then K counts each view of each clip, and the sound is what is heard from there.
    """
    prepared = dict(batch)
    if "video" in batch:
        prepared["video"] = prepare_video(batch, spec, views)
    if "gain" in batch:
        prepared["audio"] = batch["audio"] * batch["gain"][:, :, None, None]
    if views is not None and "audio" in batch:
        prepared["audio"] = hear_views(prepared, views, hearing)
    return prepared


def prepare_video(batch: Batch, spec: PictureSpec, views: ViewConfig | None = None) -> torch.Tensor:
    """The picture part of `prepare`."""
    video = batch["video"] if views is None else see_views(batch, spec.size_px, views)
    B, K, T = video.shape[:3]
    clips = video.flatten(0, 1)
    sizes = batch["video_size_px"].repeat_interleave(K, 0)
    crop, jitter = "crop_px" in batch, "jitter" in batch
    if crop:
        boxes, flips = batch["crop_px"].flatten(0, 1), batch["flip"].flatten()
    if jitter:
        factors, order = batch["jitter"].flatten(0, 1), batch["jitter_order"].flatten(0, 1).cpu()
    size = spec.size_px
    out = torch.empty((B * K, 3, T, size, size), device=video.device)
    mean, std = (torch.tensor(v, device=video.device).view(3, 1, 1, 1) for v in (spec.mean, spec.std))
    together = _CLIPS_AT_ONCE.get(video.device.type, 32)
    with torch.autocast(video.device.type, enabled=False):  # half precision would cost levels of colour
        for start in range(0, B * K, together):
            part = slice(start, start + together)
            pictures = to_rgb(clips[part])
            if crop:
                pictures = crop_resize(pictures, boxes[part], flips[part], size)
            elif views is None:
                pictures = resize_center_crop(pictures, sizes[part], spec.resize_px, size)
            pictures = pictures.div_(255)
            if jitter:
                pictures = color_jitter(pictures, factors[part], order[part])
            torch.addcmul(-mean / std, pictures.transpose(1, 2), 1 / std, out=out[part])
    return out.unflatten(0, (B, K))


def to_rgb(clips: torch.Tensor) -> torch.Tensor:
    """uint8 rgb24 [n, T, H, W, 3] or stacked yuv420p planes [n, T, H*3/2, W] -> float32 RGB [n, T, 3, H, W] in 0..255.

    yuv420p is BT.601 limited range; each chroma value colours its 2x2 block, as swscale does without rescaling.
    """
    if clips.ndim == 5:
        return clips.permute(0, 1, 4, 2, 3).to(torch.float32, memory_format=torch.contiguous_format)
    y, u, v = (plane.float() for plane in split_planes(clips))
    u, v = ((c - 128).repeat_interleave(2, -1).repeat_interleave(2, -2) for c in (u, v))
    light = (y - 16) * (255 / 219)
    scale = 255 / 224
    red = light + 2 * (1 - _GREY[0]) * scale * v
    blue = light + 2 * (1 - _GREY[2]) * scale * u
    green_u = 2 * (1 - _GREY[2]) * _GREY[2] / _GREY[1] * scale
    green_v = 2 * (1 - _GREY[0]) * _GREY[0] / _GREY[1] * scale
    green = light - green_u * u - green_v * v
    return torch.stack([red, green, blue], 2).clamp_(0, 255)


def crop_resize(pictures: torch.Tensor, boxes: torch.Tensor, flips: torch.Tensor, size: int) -> torch.Tensor:
    """Cut one box a clip out of [n, T, C, H, W] and resize it to [n, T, C, size, size], bilinear with antialiasing.

    boxes [n, 4]: top, left, height, width in px; flips [n] bool mirrors left and right. Nothing outside a box is read.
    """
    top, left, height, width = boxes.unbind(1)
    if boxes.device.type == "cpu":  # elsewhere the shape would have to wait for the device
        ends = (boxes[:, :2] + boxes[:, 2:]).amax(0).tolist()
        first = boxes[:, :2].amin(0).tolist()
        pictures = pictures[..., first[0] : ends[0], first[1] : ends[1]]
        top, left = top - first[0], left - first[1]
    whole = torch.full_like(top, size)
    rows = _weights(top, height, whole, pictures.shape[-2], size)
    columns = _weights(left, width, whole, pictures.shape[-1], size)
    columns = torch.where(flips[:, None, None], columns.flip(1), columns)
    return _resample(pictures, rows, columns)


def resize_center_crop(pictures: torch.Tensor, sizes: torch.Tensor, resize_px: int, size: int) -> torch.Tensor:
    """Resize the short side of pictures [n, T, C, H, W] to `resize_px`, keeping the aspect, and cut out the centre.

    sizes [n, 2]: valid height and width in px. Returns [n, T, C, size, size].
    Pixels outside the centre are not computed.
    """
    resized = (sizes * resize_px).div(sizes.amin(1, keepdim=True), rounding_mode="floor")
    zero = torch.zeros_like(sizes[:, 0])
    rows = _weights(zero, sizes[:, 0], resized[:, 0], pictures.shape[-2], size)
    columns = _weights(zero, sizes[:, 1], resized[:, 1], pictures.shape[-1], size)
    return _resample(pictures, rows, columns)


def _resample(pictures: torch.Tensor, rows: torch.Tensor, columns: torch.Tensor) -> torch.Tensor:
    T, C = pictures.shape[1:3]
    squeezed = rows[:, None, None] @ pictures
    return (squeezed.flatten(1, 3) @ columns.mT).unflatten(1, (T, C, -1))


def _weights(start: torch.Tensor, length: torch.Tensor, resized: torch.Tensor, source: int, size: int) -> torch.Tensor:
    """Weights [n, size, source] that resize `length` of `source` pixels, from `start` on, to `resized` pixels and keep
    the `size` in the middle of those. start, length, resized: [n].

    The triangle filter, widened by the scale when shrinking and normalised over the pixels inside the box: what torch
    and Pillow call bilinear with antialiasing. A matrix, so that boxes of all sizes are one product, on any device.
    """
    first = ((resized - size) / 2).round()[:, None, None]
    start, length, resized = (value.float()[:, None, None] for value in (start, length, resized))
    scale = length / resized
    centers = (torch.arange(size, device=start.device)[:, None] + first + 0.5) * scale
    pixels = torch.arange(source, device=start.device) + 0.5 - start
    weights = (1 - (pixels - centers).abs() / scale.clamp(min=1)).clamp(min=0)
    weights = weights * ((pixels > 0) & (pixels < length))
    return weights / weights.sum(-1, keepdim=True)


def color_jitter(pictures: torch.Tensor, factors: torch.Tensor, order: torch.Tensor) -> torch.Tensor:
    """Change the colours of RGB clips [n, T, 3, H, W] in [0, 1]: each clip by its factors [n, 4] (brightness, contrast,
    saturation, hue), in its own order [n, 4] (a permutation of 0..3; on the CPU, it costs no wait for the device)."""
    changes = (adjust_brightness, adjust_contrast, adjust_saturation, adjust_hue)
    factors = factors.view(-1, 4, 1, 1, 1, 1)
    if len(order) == 1:
        for number in order[0].tolist():
            pictures = changes[number](pictures, factors[:, number])
        return pictures
    pictures = pictures.clone()
    for slot in order.unbind(1):
        for number, change in enumerate(changes):
            which = (slot == number).nonzero()[:, 0].to(pictures.device)
            if len(which):
                pictures[which] = change(pictures[which], factors[which, number])
    return pictures


def adjust_brightness(pictures: torch.Tensor, factor: torch.Tensor) -> torch.Tensor:
    return (pictures * factor).clamp_(0, 1)


def adjust_contrast(pictures: torch.Tensor, factor: torch.Tensor) -> torch.Tensor:
    """Away from (factor > 1) or towards the mean grey of each frame."""
    mean = grey(pictures).mean((-2, -1), keepdim=True)
    return torch.lerp(mean, pictures, factor).clamp_(0, 1)


def adjust_saturation(pictures: torch.Tensor, factor: torch.Tensor) -> torch.Tensor:
    """Away from (factor > 1) or towards the grey of each pixel."""
    return torch.lerp(grey(pictures), pictures, factor).clamp_(0, 1)


def adjust_hue(pictures: torch.Tensor, shift: torch.Tensor) -> torch.Tensor:
    """Turn the hue of the HSV colour by `shift` of a full circle; value and saturation stay."""
    red, green, blue = pictures.split(1, 2)
    value = torch.maximum(torch.maximum(red, green), blue)
    low = torch.minimum(torch.minimum(red, green), blue)
    chroma = value - low
    # In sixths of the circle; products with 0 and 1 because `where` is ten times slower than they are.
    is_red = torch.eq(red, value, out=torch.empty_like(value))
    is_green = torch.eq(green, value, out=torch.empty_like(value)).mul_(1 - is_red)
    is_blue = 1 - is_red - is_green
    across = (green - blue).mul_(is_red).addcmul_(blue - red, is_green).addcmul_(red - green, is_blue)
    hue = across.div_(chroma.clamp(min=1e-12)).add_(is_green, alpha=2).add_(is_blue, alpha=4).add_(6 * shift)
    hue = hue.sub_((hue / 6).floor_().mul_(6))
    falls = ((hue - 3).abs_().neg_().add_(2), (hue - 2).abs_().sub_(1), (hue - 4).abs_().sub_(1))
    return torch.cat([torch.addcmul(value, chroma, fall.clamp_(0, 1), value=-1) for fall in falls], 2)


def grey(pictures: torch.Tensor) -> torch.Tensor:
    """Luma of RGB pictures [..., 3, H, W] as [..., 1, H, W]."""
    red, green, blue = pictures.split(1, -3)
    return (red * _GREY[0]).add_(green, alpha=_GREY[1]).add_(blue, alpha=_GREY[2])
