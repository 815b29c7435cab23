"""Real sounds: those of the media folder, cut into weakly labelled clips to train on, and mixtures that stay unseen."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from avssl import files
from avssl.errors import UsageError
from avssl.media import open_media
from avssl.media.flac import encode_flac
from avssl.separation.mixing import match_energy
from eval.separation.study import Study, Weak

VARIABLE = "AVSSL_MEDIA"
_QUIET = 0.3  # a cut of a sound has at least this share of its mean energy
_DRAWS = 20


class Sound(NamedTuple):
    """name: of the file. label: number of its class. waveform [S] float32, mono."""

    name: str
    label: int
    waveform: np.ndarray


class Sounds(NamedTuple):
    classes: list[str]
    train: list[Sound]
    held_out: list[Sound]


class Pairs(NamedTuple):
    """Mixtures of two held-out sounds of different classes, at 0 dB. All [N, S] or [N]."""

    mixture: Tensor
    target: Tensor
    other: Tensor
    label: Tensor
    other_label: Tensor


def folder() -> Path | None:
    """The media folder; None where AVSSL_MEDIA is not set."""
    return Path(value) if (value := os.environ.get(VARIABLE)) else None


def read_sounds(media: Path, study: Study) -> Sounds:
    """The instrument sounds, by class; of each class the last `held_out` files by name are held out."""
    root = media / "sounds_fsdk10"
    classes = sorted(path.name for path in root.iterdir() if path.is_dir())[: study.classes]
    train: list[Sound] = []
    held_out: list[Sound] = []
    for label, name in enumerate(classes):
        paths = sorted((root / name).iterdir())
        border = len(paths) - study.held_out
        if border < 1:
            raise UsageError(f"{root / name}: has {len(paths)} sounds, too few to hold out {study.held_out}")
        for number, path in enumerate(paths):
            sound = Sound(path.stem, label, read_mono(path, study.rate_hz))
            (train if number < border else held_out).append(sound)
    return Sounds(classes, train, held_out)


def read_mono(path: Path, rate_hz: int) -> np.ndarray:
    """[S] float32, the mean of the channels."""
    with open_media(path) as media:
        assert media.info.audio
        duration_s = media.info.audio.duration_s
        return np.asarray(media.audio_between(0.0, duration_s, rate_hz=rate_hz, channels="mono").samples[0])


def write_weak_clips(sounds: list[Sound], classes: list[str], weak: Weak, rate_hz: int, seed: int, out: Path) -> Path:
    """FLAC files and their list: each holds a piece of a sound at a random place in noise.

    The list says of each only its class; where the sound is (`sound_from_s`, `sound_to_s`) is kept for judging the
    mining, nothing else reads it.
    """
    random = np.random.default_rng(np.random.SeedSequence((seed, 1)))
    length, longest, hop = (round(value * rate_hz) for value in (weak.clip_s, weak.piece_s, weak.hop_s))
    rows = []
    for sound in sounds:
        for start in range(0, max(1, len(sound.waveform) - longest + hop), hop):
            piece = sound.waveform[start : start + longest]
            if len(piece) < 0.25 * longest and start:
                continue
            clip = 10 ** (weak.noise_db / 20) * random.standard_normal(length).astype(np.float32)
            place = int(random.integers(0, length - len(piece) + 1))
            clip[place : place + len(piece)] += piece
            name = f"{sound.label:02d}-{sound.name}-{start // hop:02d}.flac"
            data = encode_flac(np.clip(clip, -1, 1)[None], rate_hz)
            files.write_atomic(out / name, lambda file, data=data: file.write(data))
            where = {"sound_from_s": place / rate_hz, "sound_to_s": (place + len(piece)) / rate_hz}
            rows.append({"path": name, "label": classes[sound.label], **where})
    files.write_jsonl(out / "clips.jsonl", rows)
    return out / "clips.jsonl"


def make_pairs(sounds: list[Sound], study: Study) -> Pairs:
    """`study.pairs` mixtures for each class, with as many different classes as the other sound."""
    random = np.random.default_rng(np.random.SeedSequence((study.seed, 2)))
    by_label: dict[int, list[Sound]] = {}
    for sound in sounds:
        by_label.setdefault(sound.label, []).append(sound)
    samples = round(study.mixture_s * study.rate_hz)
    targets, others, labels = [], [], []
    for label, own in by_label.items():
        rest = random.permutation([other for other in by_label if other != label])
        for number in range(study.pairs):
            other_label = int(rest[number % len(rest)])
            other = by_label[other_label][int(random.integers(len(by_label[other_label])))]
            targets.append(loud_cut(own[number % len(own)].waveform, samples, random))
            others.append(loud_cut(other.waveform, samples, random))
            labels.append((label, other_label))
    target, other = torch.from_numpy(np.stack(targets)), torch.from_numpy(np.stack(others))
    other = match_energy(target, other) * other
    label, other_label = torch.tensor(labels).unbind(1)
    return Pairs(target + other, target, other, label, other_label)


def loud_cut(waveform: np.ndarray, samples: int, random: np.random.Generator) -> np.ndarray:
    """A random cut where the sound is not nearly silent; a shorter sound at a random place in silence."""
    if len(waveform) <= samples:
        place = int(random.integers(0, samples - len(waveform) + 1))
        return np.pad(waveform, (place, samples - len(waveform) - place))
    energy = float(np.square(waveform).mean())
    for _ in range(_DRAWS):
        start = int(random.integers(0, len(waveform) - samples + 1))
        cut = waveform[start : start + samples]
        if np.square(cut).mean() > _QUIET * energy:
            break
    return cut
