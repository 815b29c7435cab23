"""A trained model as users meet it: pixels or waveforms in, unit vectors out; preprocessing is its own business."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import gcd
from typing import Any, overload

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from avssl import compat
from avssl.config import nearest
from avssl.errors import ModelError, UsageError
from avssl.models.config import AudioInput, VideoInput
from avssl.models.hub import HubMixin
from avssl.models.tower import Tower
from avssl.models.two_tower import TwoTower

EMBEDDING = "embedding"
_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


class AVModel(HubMixin):
    """Encodes frames and sound with a TwoTower in evaluation mode. Equal input gives equal output, whatever the batch.

    model: the TwoTower (put into evaluation mode); `network` is all that is computed with, of which it may be a part.
    config: its ModelConfig. description: the config.json it came with.
    dtype: what towers and heads compute in; weights, front end and results are float32.
    """

    network: nn.Module

    def __init__(
        self,
        model: TwoTower,
        *,
        device: str | torch.device = "cpu",
        dtype: torch.dtype | str = "float32",
        description: dict[str, Any] | None = None,
    ):
        self.model = self.network = model.eval().to(device)
        self.config = model.config
        self.description = description or {}
        self.device = torch.device(device)
        self.dtype = _DTYPES.get(str(dtype).removeprefix("torch."))
        if self.dtype is None:
            raise UsageError(f"dtype {dtype}: {nearest(str(dtype), _DTYPES)}")

    @property
    def dim(self) -> int:
        """Length of an embedding."""
        return self.model.dim

    @property
    def video_input(self) -> VideoInput:
        """The clip that `encode_video` takes. Raises ModelError if the model has no video tower."""
        return _expected(self.config.video_input if self.config.video else None, "video")

    @property
    def audio_input(self) -> AudioInput:
        """The window that `encode_audio` takes. Raises ModelError if the model has no audio tower."""
        return _expected(self.config.audio_input if self.config.audio else None, "audio")

    def layers(self, modality: str) -> list[str]:
        """The names that `layers=` takes for "video" or "audio"."""
        return [*self._tower(modality).stage_names, EMBEDDING]

    @overload
    def encode_video(self, frames: Any, *, batch_size: int = ...) -> Tensor: ...
    @overload
    def encode_video(self, frames: Any, *, layers: Sequence[str], batch_size: int = ...) -> dict[str, Tensor]: ...

    def encode_video(
        self, frames: Any, *, layers: Sequence[str] | None = None, batch_size: int = 32
    ) -> Tensor | dict[str, Tensor]:
        """uint8 RGB frames [..., T, H, W, 3] of any size (tensor or array) -> unit vectors [..., dim], float32.

        Frames are resized (short side), cut from the centre and normalised here. T consecutive frames at
        `video_input.fps`; other numbers than `video_input.frames` are taken if the tower allows (`any_length`).

        layers: instead, a dict of those stages, maps averaged over time and space ([..., channels]); "embedding" is the
        unit vector. batch_size: clips computed at once; bounds memory.

        Raises UsageError for a wrong shape, type or layer, ModelError if there is no video tower.
        """
        expected = self.video_input
        frames = torch.as_tensor(frames)
        if frames.ndim < 4 or frames.shape[-1] != 3 or frames.dtype != torch.uint8 or 0 in frames.shape[-4:]:
            raise UsageError(
                f"encode_video: expected uint8 RGB frames [..., T, H, W, 3], got {frames.dtype} {list(frames.shape)}"
            )
        if frames.shape[-4] != expected.frames and not self._tower("video").any_length:
            raise UsageError(
                f"encode_video: this model takes clips of exactly {expected.frames} frames at {expected.fps:g} fps, "
                f"got {frames.shape[-4]}; sample that many"
            )
        return self._encode("video", frames, 4, lambda clips: _pixels(clips, expected, self.device), layers, batch_size)

    @overload
    def encode_audio(self, waveform: Any, rate_hz: int, *, batch_size: int = ...) -> Tensor: ...
    @overload
    def encode_audio(
        self, waveform: Any, rate_hz: int, *, layers: Sequence[str], batch_size: int = ...
    ) -> dict[str, Tensor]: ...

    def encode_audio(
        self, waveform: Any, rate_hz: int, *, layers: Sequence[str] | None = None, batch_size: int = 32
    ) -> Tensor | dict[str, Tensor]:
        """Waveform [S] (mono) or [..., C, S] in [-1, 1] (tensor or array) -> unit vectors [..., dim], float32.

        C is `audio_input.channels`. Resampled to the model's rate, then cut around its centre, or padded with zeros on
        both sides, to the model's window. layers, batch_size, errors: as `encode_video`.
        """
        expected = self.audio_input
        waveform = torch.as_tensor(waveform)
        if waveform.ndim == 1:
            waveform = waveform[None]
        if waveform.ndim < 1 or not waveform.is_floating_point() or waveform.shape[-1] == 0:
            raise UsageError(
                f"encode_audio: expected a floating-point waveform [S] or [..., C, S] in [-1, 1], "
                f"got {waveform.dtype} {list(waveform.shape)}"
            )
        if waveform.shape[-2] != expected.channels:
            raise UsageError(
                f"encode_audio: the model takes {expected.channels} channel(s), the second-last axis of "
                f"{list(waveform.shape)} has {waveform.shape[-2]}; give [..., {expected.channels}, S]"
            )

        def window(sounds: Tensor) -> Tensor:
            return centre_window(resample(sounds.to(self.device).float(), rate_hz, expected.rate_hz), expected.samples)

        return self._encode("audio", waveform, 2, window, layers, batch_size)

    @torch.inference_mode()
    def _encode(
        self,
        modality: str,
        x: Tensor,
        item_axes: int,
        prepare: Callable[[Tensor], Tensor],
        layers: Sequence[str] | None,
        batch_size: int,
    ) -> Tensor | dict[str, Tensor]:
        names = [EMBEDDING] if layers is None else list(layers)
        for name in names:
            if name not in self.layers(modality):
                raise UsageError(f"there is no {modality} layer {name!r}; {nearest(name, self.layers(modality))}")
        leading = x.shape[:-item_axes]
        items = x.reshape(-1, *x.shape[-item_axes:])
        if not len(items):
            raise UsageError(f"encode_{modality}: the input {list(x.shape)} is empty")
        parts = [self._features(modality, prepare(part), names) for part in items.split(batch_size)]
        joined = {name: torch.cat([part[name] for part in parts]).unflatten(0, leading or (1,)) for name in names}
        if not leading:
            joined = {name: value[0] for name, value in joined.items()}
        return joined[EMBEDDING] if layers is None else joined

    def _features(self, modality: str, x: Tensor, names: list[str]) -> dict[str, Tensor]:
        head = self.model.video_head if modality == "video" else self.model.audio_head
        assert head is not None  # the modality's input facts were asked for first
        with torch.autocast(self.device.type, dtype=self.dtype, enabled=self.dtype != torch.float32):
            if modality == "audio":
                x = self.model.spectrogram(x)
            if names == [EMBEDDING]:  # keeps no intermediate maps
                stages = {"pool": self._tower(modality)(x)}
            else:
                stages = self._tower(modality).feature_stages(x)
            vectors = {name: stages[name].float() for name in names if name != EMBEDDING}
            vectors = {name: value.flatten(2).mean(2) if value.ndim > 2 else value for name, value in vectors.items()}
            if EMBEDDING in names:
                vectors[EMBEDDING] = F.normalize(head(stages["pool"]).float(), dim=-1)
        return vectors

    def _tower(self, modality: str) -> Tower:
        return _expected(self.model.video_tower if modality == "video" else self.model.audio_tower, modality)


def _pixels(clips: Tensor, expected: VideoInput, device: torch.device) -> Tensor:
    """uint8 [B, T, H, W, 3] -> normalised float32 [B, 3, T, size, size] on the device."""
    frames = clips.flatten(0, 1).movedim(-1, 1)
    frames = centre_crop(resize_short_side(frames, expected.resize_px), expected.size_px).to(device)
    mean, std = (torch.tensor(value, device=device)[:, None, None] for value in (expected.mean, expected.std))
    pixels = (frames.float() / 255 - mean) / std
    return pixels.unflatten(0, clips.shape[:2]).transpose(1, 2)


def resize_short_side(frames: Tensor, side_px: int) -> Tensor:
    """uint8 [N, 3, H, W] with the short side at `side_px`: bilinear, antialiased, rounded to uint8."""
    height, width = frames.shape[-2:]
    scale = side_px / min(height, width)
    size = (max(side_px, round(height * scale)), max(side_px, round(width * scale)))
    if size == (height, width):
        return frames
    if frames.device.type == "cpu":  # the uint8 kernel is ten times faster than the float one; only CPUs have it
        return F.interpolate(frames, size=size, mode="bilinear", antialias=True)
    resized = F.interpolate(frames.float(), size=size, mode="bilinear", antialias=True)
    return resized.round().clamp(0, 255).to(torch.uint8)


def centre_crop(frames: Tensor, side_px: int) -> Tensor:
    """[..., H, W] -> [..., side_px, side_px]; both sides must be at least that long."""
    top, left = ((length - side_px) // 2 for length in frames.shape[-2:])
    return frames[..., top : top + side_px, left : left + side_px]


def resample(waveform: Tensor, from_hz: int, to_hz: int) -> Tensor:
    """[..., S] at another rate, band-limited (torchaudio's windowed sinc). Raises UsageError for an absurd rate."""
    if from_hz == to_hz:
        return waveform
    if from_hz <= 0 or from_hz != int(from_hz) or from_hz * to_hz / gcd(int(from_hz), to_hz) ** 2 > 10_000_000:
        raise UsageError(f"encode_audio: cannot resample from {from_hz} Hz to {to_hz} Hz; convert it to a usual rate")
    return compat.torchaudio().functional.resample(waveform, int(from_hz), to_hz)


def centre_window(waveform: Tensor, samples: int) -> Tensor:
    """The `samples` around the centre of [..., S], zeros on both sides where it is shorter."""
    missing = samples - waveform.shape[-1]
    before = missing // 2
    return F.pad(waveform, (before, missing - before))  # negative padding cuts


def _expected(value: Any, modality: str) -> Any:
    if value is None:
        raise ModelError(f"this model has no {modality} tower; use one that has")
    return value
