"""From the uint8 batch to what towers take, on the batch's device. Pure functions of the batch: every random number
was drawn by the worker and travels in it (`avssl.data.augment`).

With `crop_px` in the batch the picture gets the random resized crop, flip and colour jitter; without, the short side is
resized and the centre cut out. Clips go through in groups, which bounds memory.
"""

from __future__ import annotations

from typing import Protocol

import torch

from avssl.data.collate import Batch, split_planes

_CLIPS_AT_ONCE = 32
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
def prepare(batch: Batch, spec: PictureSpec) -> Batch:
    """The batch with `video` as float32 [B, K, 3, T, H, W], normalised, H = W = `spec.size_px`, and `audio` times
    its gain. Other entries are passed on; the input is not changed."""
    prepared = dict(batch)
    if "video" in batch:
        prepared["video"] = prepare_video(batch, spec)
    if "gain" in batch:
        prepared["audio"] = batch["audio"] * batch["gain"][:, :, None, None]
    return prepared


def prepare_video(batch: Batch, spec: PictureSpec) -> torch.Tensor:
    """The picture part of `prepare`."""
    video = batch["video"]
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
    with torch.autocast(video.device.type, enabled=False):  # half precision would cost levels of colour
        for start in range(0, B * K, _CLIPS_AT_ONCE):
            part = slice(start, start + _CLIPS_AT_ONCE)
            pictures = to_rgb(clips[part])
            if crop:
                pictures = crop_resize(pictures, boxes[part], flips[part], size) / 255
            else:
                pictures = resize_center_crop(pictures, sizes[part], spec.resize_px, size) / 255
            if jitter:
                pictures = color_jitter(pictures, factors[part], order[part])
            torch.div(pictures.transpose(1, 2) - mean, std, out=out[part])
    return out.unflatten(0, (B, K))


def to_rgb(clips: torch.Tensor) -> torch.Tensor:
    """uint8 rgb24 [n, T, H, W, 3] or stacked yuv420p planes [n, T, H*3/2, W] -> float32 RGB [n, T, 3, H, W] in 0..255.

    yuv420p is BT.601 limited range; each chroma value colours its 2x2 block, as swscale does without rescaling.
    """
    if clips.ndim == 5:
        return clips.permute(0, 1, 4, 2, 3).float()
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
    return rows[:, None, None] @ (pictures @ columns.mT[:, None, None])


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
    pictures = pictures.clone()
    for slot in order.unbind(1):
        for number, adjust in enumerate((adjust_brightness, adjust_contrast, adjust_saturation, adjust_hue)):
            which = (slot == number).nonzero()[:, 0].to(pictures.device)
            if len(which):
                pictures[which] = adjust(pictures[which], factors[which, number].view(-1, 1, 1, 1, 1))
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
    value, low = pictures.amax(2, keepdim=True), pictures.amin(2, keepdim=True)
    chroma = value - low
    red, green, blue = ((value - pictures) / chroma.clamp(min=1e-12)).split(1, 2)
    hue = torch.where(green == 0, 2 + red - blue, 4 + green - red)
    hue = torch.where(red == 0, blue - green, hue) + 6 * shift  # in sixths of the circle
    offsets = torch.tensor([5.0, 3.0, 1.0], device=pictures.device).view(3, 1, 1)
    distance = (hue + offsets).remainder_(6)
    return value - chroma * torch.minimum(distance, 4 - distance).clamp_(0, 1)


def grey(pictures: torch.Tensor) -> torch.Tensor:
    """Luma of RGB pictures [..., 3, H, W] as [..., 1, H, W]."""
    weights = torch.tensor(_GREY, device=pictures.device, dtype=pictures.dtype)
    return torch.einsum("...chw,c->...hw", pictures, weights).unsqueeze(-3)
