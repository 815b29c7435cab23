"""What a page shows of a sound of any length, gathered while it streams by: a spectrogram and the first seconds."""

from __future__ import annotations

import base64
import io

import numpy as np
from numpy.typing import NDArray

COLUMNS = 720  # of the picture, at most; neighbours are averaged when there are more
BANDS = 96
LOWEST_HZ = 40.0
RANGE_DB = 70.0  # from the loudest cell of the mixture to black
HEARD_S = 30.0  # that a player plays
PLAYER_HZ = 24_000
_FFT = 2048

# Black over violet and orange to pale yellow, evenly brighter: red, green and blue at five places.
_COLOURS = np.array([[0, 0, 4], [80, 18, 123], [182, 54, 121], [251, 136, 97], [252, 253, 191]], float)


class SoundPicture:
    """Feed it blocks with `add`, then ask for `png` and `mp3`. Memory does not depend on how much came."""

    def __init__(self, rate_hz: int):
        self._rate_hz = rate_hz
        self._window = np.hanning(_FFT + 1)[:-1].astype(np.float32)
        self._bands = _band_edges(rate_hz)
        self._held = np.zeros(_FFT // 2, np.float32)  # the first frame is centred on the first sample
        self._columns = np.zeros((2 * COLUMNS, BANDS))
        self._frames_each = 1  # how many frames a finished column is the mean of
        self._done = 0  # finished columns
        self._open, self._open_frames = np.zeros(BANDS), 0
        self._heard: list[NDArray[np.int16]] = []
        self._heard_samples = 0
        self.energy = 0.0
        """Sum of the squares of all samples of all channels."""

    def add(self, samples: np.ndarray) -> None:
        """The next samples [C, S]."""
        self.energy += float(np.square(samples, dtype=np.float64).sum())
        mono = samples.mean(axis=0, dtype=np.float32)
        missing = round(HEARD_S * self._rate_hz) - self._heard_samples
        if missing > 0:
            part = np.clip(np.rint(mono[:missing] * 32767), -32768, 32767).astype(np.int16)
            self._heard.append(part)
            self._heard_samples += len(part)
        self._held = np.concatenate([self._held, mono])
        count = max(0, (len(self._held) - _FFT) // (_FFT // 2) + 1)
        for first in range(0, count, 256):
            frames = np.stack(
                [self._held[n * _FFT // 2 : n * _FFT // 2 + _FFT] for n in range(first, min(first + 256, count))]
            )
            power = np.abs(np.fft.rfft(frames * self._window)) ** 2
            edges = self._bands
            for row in np.add.reduceat(power[:, : edges[-1]], edges[:-1], axis=1) / np.diff(edges):
                self._add_frame(row)
        self._held = self._held[count * _FFT // 2 :]

    def _add_frame(self, row: np.ndarray) -> None:
        self._open = self._open + row
        self._open_frames += 1
        if self._open_frames == self._frames_each:
            self._columns[self._done] = self._open / self._frames_each
            self._open, self._open_frames, self._done = np.zeros(BANDS), 0, self._done + 1
        if self._done == len(self._columns):
            self._columns[:COLUMNS] = self._columns.reshape(COLUMNS, 2, BANDS).mean(axis=1)
            self._done, self._frames_each = COLUMNS, 2 * self._frames_each

    @property
    def loudest(self) -> float:
        """Power of the loudest cell: what other pictures of the same recording are drawn against."""
        return float(self._columns[: self._done].max(initial=0.0))

    def png(self, loudest: float) -> str:
        """The spectrogram as a data URI: low frequencies below, brightness in dB below `loudest`."""
        from PIL import Image

        power = self._columns[: max(self._done, 1)]
        level = 10 * np.log10(np.maximum(power, 1e-20) / max(loudest, 1e-20))
        share = np.clip(1 + level / RANGE_DB, 0, 1).T[::-1]
        place = share * (len(_COLOURS) - 1)
        pixels = np.stack([np.interp(place, range(len(_COLOURS)), channel) for channel in _COLOURS.T], axis=-1)
        image = Image.fromarray(pixels.astype(np.uint8)).quantize(64)
        file = io.BytesIO()
        image.save(file, "PNG", optimize=True)
        return _data_uri("image/png", file.getvalue())

    def mp3(self) -> str:
        """The first seconds, mono, as a data URI."""
        import torch

        from avssl.media import MediaWriter
        from avssl.separation.rates import Converter

        sound = torch.from_numpy(np.concatenate([*self._heard, np.zeros(1, np.int16)]).astype(np.float32) / 32768)
        samples = Converter(self._rate_hz, PLAYER_HZ).whole(sound[None]).clamp(-1, 1).numpy()
        file = io.BytesIO()
        with MediaWriter(file, container="mp3") as writer:
            writer.add_audio(PLAYER_HZ, bit_rate=48_000).write(samples)
        return _data_uri("audio/mpeg", file.getvalue())


def _band_edges(rate_hz: int) -> NDArray[np.int64]:
    """Bins where the bands begin, evenly spaced in log frequency but at least one bin each; and where the last ends."""
    bins = np.geomspace(LOWEST_HZ, rate_hz / 2, BANDS + 1) * _FFT / rate_hz
    edges: list[int] = []
    for value in bins:
        edges.append(max(round(value), edges[-1] + 1 if edges else 1))
    top = _FFT // 2 + 1
    for back in range(1, BANDS + 2):  # low rates: the bands must fit below the last bin
        edges[-back] = min(edges[-back], top - back + 1)
    return np.array(edges)


def _data_uri(kind: str, data: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"
