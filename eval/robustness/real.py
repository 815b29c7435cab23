"""Real clips: the labelled videos of the media folder, cut into many short overlapping pieces.

The pieces of one video are not independent: they look and sound alike. The last third of each video is held out: other
moments of the same scenes. So this shows how the methods behave on real pictures and sounds, not how a model fares on
videos that it has never seen.
"""

from __future__ import annotations

import functools
import os
from pathlib import Path
from typing import NamedTuple

import numpy as np

from avssl.errors import UsageError
from avssl.media import open_media
from eval.robustness.clips import FPS, RATE_HZ, STORED_PX, Clips, make_clips

VARIABLE = "AVSSL_MEDIA"
PIECE_S, HOP_S = 1.5, 0.25
HELD_OUT_SHARE = 1 / 3


class Pieces(NamedTuple):
    """video: [N, T, H, W, 3] uint8; sound: [N, S] float32; label: [N] int64."""

    video: np.ndarray
    sound: np.ndarray
    label: np.ndarray


def folder() -> Path | None:
    """Where the labelled videos lie, CLASS/FILE; None where AVSSL_MEDIA is not set."""
    return Path(value) / "av_labelled" if (value := os.environ.get(VARIABLE)) else None


def load_real(mismatch: float, seed: int) -> tuple[Clips, Clips]:
    """Training and held-out pieces; `mismatch` of the training pieces get the sound of a piece of another class."""
    if (place := folder()) is None:
        raise UsageError(f"the real clips need {VARIABLE}, the folder of media; it is not set")
    train, held_out = cut_videos(place)
    clips = make_clips(train.video, train.sound, train.label, wrong_sounds(train.label, mismatch, seed))
    return clips, make_clips(
        held_out.video, held_out.sound, held_out.label, np.arange(len(held_out.label)), clips.level
    )


@functools.lru_cache(maxsize=1)
def cut_videos(place: Path) -> tuple[Pieces, Pieces]:
    """All videos in pieces: the first two thirds of each to learn from, the last third to measure on."""
    classes = sorted(path.name for path in place.iterdir() if path.is_dir())
    parts: tuple[list[tuple[np.ndarray, np.ndarray, int]], ...] = ([], [])
    for label, name in enumerate(classes):
        for path in sorted((place / name).iterdir()):
            with open_media(path) as media:
                info = media.info
                if info.video is None or info.audio is None:
                    raise UsageError(f"{path}: has no picture or no sound; the labelled videos need both")
                start_s = max(info.video.start_s, info.audio.start_s)
                end_s = min(part.start_s + part.duration_s for part in (info.video, info.audio))
                times_s = np.arange(start_s, end_s - 0.5 / FPS, 1 / FPS)
                frames = _square(media.frames_at(times_s, short_side_px=STORED_PX).data)
                sound = media.audio_between(start_s, len(times_s) / FPS, rate_hz=RATE_HZ).samples[0]
            border = round(len(frames) * (1 - HELD_OUT_SHARE))
            for part, first, last in ((0, 0, border), (1, border, len(frames))):
                parts[part].extend((*piece, label) for piece in _pieces(frames[first:last], sound, first))
    return _stack(parts[0]), _stack(parts[1])


def wrong_sounds(labels: np.ndarray, mismatch: float, seed: int) -> np.ndarray:
    """[N] whose sound each piece gets: its own, or for exactly round(mismatch * N) that of one of another class."""
    random = np.random.default_rng(np.random.SeedSequence((seed, len(labels))))
    sound_of = np.arange(len(labels))
    for piece in random.choice(len(labels), round(mismatch * len(labels)), replace=False):
        sound_of[piece] = random.choice(np.flatnonzero(labels != labels[piece]))
    return sound_of


def _square(frames: np.ndarray) -> np.ndarray:
    """The middle of the pictures [T, H, W, 3]."""
    top, left = ((side - STORED_PX) // 2 for side in frames.shape[1:3])
    return frames[:, top : top + STORED_PX, left : left + STORED_PX]


def _pieces(frames: np.ndarray, sound: np.ndarray, first: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Pieces of PIECE_S, one every HOP_S; the first of `frames` is shown at the time of frame `first` of the sound."""
    length, hop, samples = round(PIECE_S * FPS), round(HOP_S * FPS), round(RATE_HZ / FPS)
    found = []
    for start in range(0, len(frames) - length + 1, hop):
        begin = (first + start) * samples
        found.append((frames[start : start + length], sound[begin : begin + length * samples]))
    return found


def _stack(pieces: list[tuple[np.ndarray, np.ndarray, int]]) -> Pieces:
    video, sound, label = zip(*pieces, strict=True)
    return Pieces(np.stack(video), np.stack(sound).astype(np.float32), np.array(label))
