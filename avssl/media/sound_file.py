"""Write sound block by block into a FLAC or WAV file that appears whole or not at all. Nothing is rescaled."""

from __future__ import annotations

import os
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np

from avssl.errors import UsageError

STEP = 2.0**-23  # of 24-bit samples
_KINDS = {".flac": ("FLAC", "PCM_24"), ".wav": ("WAV", "FLOAT")}
_FLAC_CHANNELS, _FLAC_RATE_HZ = 8, 655_350


class SoundWriter:
    """A file under construction; use it in a `with`. After an error in it there is no file.

    FLAC holds 24 bits: what is a multiple of `STEP` within ±1 is kept exactly, and what is louder is cut and counted in
    `clipped`. WAV holds float32. Raises UsageError where the format cannot hold the rate or the channels.
    """

    def __init__(self, path: Path, rate_hz: int, channels: int):
        import soundfile

        kind, subtype = _KINDS[path.suffix]
        if kind == "FLAC" and (channels > _FLAC_CHANNELS or rate_hz > _FLAC_RATE_HZ):
            raise UsageError(f"{path}: FLAC cannot hold {channels} channels at {rate_hz} Hz; write WAV instead")
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        self.clipped = 0
        self._as_integers = kind == "FLAC"
        self._temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        self._file = soundfile.SoundFile(
            self._temporary, "w", samplerate=rate_hz, channels=channels, format=kind, subtype=subtype
        )

    def write(self, samples: np.ndarray) -> None:
        """Add samples [C, S] that follow the ones before."""
        if self._as_integers:
            steps = np.rint(np.asarray(samples, np.float64) / STEP)
            kept = np.clip(steps, -(2**23), 2**23 - 1)
            self.clipped += int((kept != steps).sum())
            self._file.write((kept.T.astype(np.int32)) << 8)  # libsndfile takes the upper 24 of 32 bits
        else:
            self._file.write(np.asarray(samples, np.float32).T)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._file.close()
            if kind is None:
                self._temporary.replace(self.path)
        finally:
            self._temporary.unlink(missing_ok=True)
