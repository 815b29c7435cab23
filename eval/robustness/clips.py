"""Clips kept in memory, small enough for training runs of seconds: pictures, log-mels, and what is true of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from avssl.models.config import AudioInput, FrontEndConfig
from avssl.models.front_ends import create_front_end

FPS = 4.0
FRAMES = 4  # of a training clip: one second
SIDE_PX = 32  # of a training clip
STORED_PX = 36  # what random crops are cut from
RATE_HZ = 16_000
HOPS_A_FRAME = 5  # spectrogram columns of 50 ms for each frame of 250 ms, so that both are cut at the same time
BANDS = 40
_CHUNK = 256  # sounds at a time through the front end


class Level(NamedTuple):
    """Mean and standard deviation of spectrograms in dB, by which they are normalised."""

    mean_db: float
    std_db: float


class Window(NamedTuple):
    """What a training clip shows of a stored one."""

    frame: int
    top: int
    left: int
    mirrored: int


@dataclass(frozen=True)
class Clips:
    """N pairs of a picture and a sound, longer and larger than what is trained on."""

    video: np.ndarray  # [N, T, H, W, 3] uint8
    sound: np.ndarray  # [N, T * HOPS_A_FRAME, BANDS] float16, zero mean and unit deviation over the training clips
    label: Tensor  # [N] int64, the class that is seen
    heard: Tensor  # [N] int64, the class that is heard
    mismatched: Tensor  # [N] bool
    level: Level

    def __len__(self) -> int:
        return len(self.label)


def make_clips(
    video: np.ndarray, waveforms: np.ndarray, label: np.ndarray, sound_of: np.ndarray, level: Level | None = None
) -> Clips:
    """Pair picture i with sound `sound_of[i]`.

    video: [N, T, H, W, 3] uint8 at FPS. waveforms: [N, S] at RATE_HZ, as long as the video. `level` is that of the
    training clips; None measures it.
    """
    decibels = _decibels(waveforms)
    level = level or Level(float(decibels.mean()), float(decibels.std()))
    sound = ((decibels - level.mean_db) / level.std_db).half()
    labels, partner = torch.from_numpy(label), torch.from_numpy(sound_of)
    return Clips(
        video=video,
        sound=sound[partner].numpy(),
        label=labels,
        heard=labels[partner],
        mismatched=partner != torch.arange(len(partner)),
        level=level,
    )


def _decibels(waveforms: np.ndarray) -> Tensor:
    hop = round(RATE_HZ / FPS / HOPS_A_FRAME)
    kind = FrontEndConfig("log_mel", {"fft": 1024, "hop": hop, "bands": BANDS, "exponent": 2.0, "range_db": 80.0})
    front_end = create_front_end(AudioInput(RATE_HZ, waveforms.shape[1] / RATE_HZ, 1, kind))
    parts = torch.from_numpy(waveforms).split(_CHUNK)
    return torch.cat([front_end.decibels(part[:, None])[:, 0] for part in parts])


def cut(clips: Clips, rows: Tensor, windows: Sequence[Window]) -> tuple[Tensor, Tensor]:
    """The window of each row: pixels [B, 3, FRAMES, SIDE_PX, SIDE_PX] about -2..2 and the sound of the same second
    [B, 1, FRAMES * HOPS_A_FRAME, BANDS], both float32."""
    pictures, sounds = [], []
    for row, window in zip(rows.tolist(), windows, strict=True):
        frame, top, left = window.frame, window.top, window.left
        picture = clips.video[row, frame : frame + FRAMES, top : top + SIDE_PX, left : left + SIDE_PX]
        pictures.append(picture[:, :, ::-1] if window.mirrored else picture)
        sounds.append(clips.sound[row, frame * HOPS_A_FRAME : (frame + FRAMES) * HOPS_A_FRAME])
    video = torch.from_numpy(np.stack(pictures)).float().div_(64).sub_(2)
    return video.permute(0, 4, 1, 2, 3), torch.from_numpy(np.stack(sounds))[:, None].float()


def augmented(clips: Clips, rows: Tensor, random: np.random.Generator) -> dict[str, Tensor]:
    """A training batch of these rows as `XIDTask` takes it: random second, crop, mirror image, brightness, loudness."""
    n = len(rows)
    _, frames, height, width, _ = clips.video.shape
    spare = np.array([frames - FRAMES, height - SIDE_PX, width - SIDE_PX, 1])
    windows = [Window(*map(int, draw)) for draw in random.integers(0, spare + 1, (n, 4))]
    video, sound = cut(clips, rows, windows)
    brighter = torch.from_numpy(random.uniform(-0.5, 0.5, (n, 1, 1, 1, 1)).astype(np.float32))
    louder_db = torch.from_numpy(random.uniform(-6.0, 6.0, (n, 1, 1, 1)).astype(np.float32))
    return {
        "row": rows,
        "video": (video + brighter)[:, None],
        "audio": (sound + louder_db / clips.level.std_db)[:, None],
    }


def centred(clips: Clips, rows: Tensor, frame: int) -> tuple[Tensor, Tensor]:
    """The second from `frame` on and the middle of the picture, without any randomness; as `cut` gives it."""
    _, _, height, width, _ = clips.video.shape
    return cut(clips, rows, [Window(frame, (height - SIDE_PX) // 2, (width - SIDE_PX) // 2, 0)] * len(rows))
