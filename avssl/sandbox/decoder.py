"""Media files opened in a confined process, for a caller that goes on whatever becomes of that process.

    with Decoder() as decoder, decoder.open("stranger.mp4") as media:
        for part in media.iter_frames(0.0, fps=16): ...

One process decodes file after file. When it dies or takes too long, the file it was at gets the blame as a `MediaError`
(`worker-died`, `timeout`) and the next file a new process.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import threading
import time
from collections.abc import Iterator
from fractions import Fraction
from functools import cached_property
from types import TracebackType
from typing import Any, Self

import numpy as np

from avssl.errors import AvsslError, MediaError
from avssl.media.limits import DEFAULT_LIMITS, Limits
from avssl.media.regular import open_regular
from avssl.media.types import Ambisonics, Audio, AudioInfo, Frames, MediaInfo, SpatialInfo, VideoInfo
from avssl.sandbox.bounds import Bounds
from avssl.sandbox.child import Child, DeadError
from avssl.sandbox.media_server import MediaServer

_HARD_TIMEOUT = 1.5  # media has its own time limit; the process is killed if it did not keep it

Form = tuple[type, tuple[int, ...]]
"""Of an array in an answer: its type, and the numbers of axes it may have."""


class Decoder:
    """Opens media in a confined process, which starts with the first file or with `start`. Threads may share it."""

    def __init__(self, bounds: Bounds | None = None, limits: Limits = DEFAULT_LIMITS):
        self._bounds, self._limits = bounds or Bounds(), limits
        self._server = MediaServer(limits, limits.timeout_s * _HARD_TIMEOUT)
        self._child: Child | None = None
        self._lock = threading.Lock()
        self._numbers = itertools.count()
        self.restarts = 0
        """How often a process died or was killed."""

    def start(self) -> None:
        """Start the process now, while the caller does something else."""
        with self._lock:
            if self._child is None:
                self._child = Child(self._server, self._bounds, tidy=False)

    @property
    def pid(self) -> int | None:
        """Of the process, if there is one."""
        return None if self._child is None else self._child.pid

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the process."""
        with self._lock:
            self._drop()

    def open(self, path: str | os.PathLike[str], *, name: str | None = None) -> RemoteMedia:
        """As `avssl.media.open_media` for a path; raises the same errors, and `worker-died`."""
        name = name or str(os.fspath(path))
        descriptor = open_regular(path, name)
        try:
            self.start()
            media = RemoteMedia(self, self._child, next(self._numbers), name)
            media.ask("open", name, descriptor=descriptor)
        finally:
            os.close(descriptor)
        return media

    def new_number(self) -> int:
        """For an iterator."""
        return next(self._numbers)

    def ask(
        self, child: Child | None, name: str, request: tuple, descriptor: int | None = None
    ) -> tuple[Any, list[bytearray]]:
        """What `child` answers, for the file of this name. A child that is gone is known by its file's error."""
        with self._lock:
            if child is None or child is not self._child:
                raise MediaError(name, "worker-died", "the process that decoded it has ended")
            try:
                if child.protections is None:
                    child.hear_ready()
            except (DeadError, TimeoutError) as error:
                self._drop()
                raise AvsslError(f"the process that decodes cannot start ({error}); see its message above") from None
            child.send(request, descriptor)
            timeout_s = self._limits.timeout_s * _HARD_TIMEOUT
            try:
                head, parts = child.receive(time.monotonic() + timeout_s)
            except DeadError as error:
                self._restart()
                raise MediaError(name, "worker-died", f"the process that decoded it died ({error})") from None
            except TimeoutError:
                self._restart()
                raise MediaError(name, "timeout", f"took more than {timeout_s:g} s") from None
        if not isinstance(head, dict):
            raise _nonsense(name)
        if "media" in head:
            reason, detail = _two(head["media"], name)
            raise MediaError(name, str(reason)[:32], str(detail)[:1000])
        if "system" in head:
            number, text = _two(head["system"], name)
            raise OSError(number, str(text)[:1000])
        return head, parts

    def _restart(self) -> None:
        self._drop()
        self.restarts += 1

    def _drop(self) -> None:
        if self._child is not None:
            self._child.end()
            self._child = None


class RemoteMedia:
    """What `avssl.media.Media` offers for reading a file through once; see there."""

    def __init__(self, decoder: Decoder, child: Child | None, number: int, name: str):
        self._decoder, self._child, self._number, self._name = decoder, child, number, name

    def ask(self, verb: str, *arguments: Any, descriptor: int | None = None) -> tuple[Any, list[bytearray]]:
        return self._decoder.ask(self._child, self._name, (verb, self._number, *arguments), descriptor)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; nothing is said of a process that is gone."""
        with contextlib.suppress(MediaError, OSError):
            self.ask("close")

    @cached_property
    def info(self) -> MediaInfo:
        head, _ = self.ask("info")
        try:
            fields = head["info"]
            video, audio = fields.pop("video"), fields.pop("audio")
            if video is not None:
                video = VideoInfo(**video | {"time_base": Fraction(*video["time_base"])})
            return MediaInfo(**fields, video=video, audio=None if audio is None else AudioInfo(**audio))
        except (KeyError, TypeError, ValueError, AttributeError, ZeroDivisionError):
            raise _nonsense(self._name) from None

    @cached_property
    def spatial(self) -> SpatialInfo:
        head, _ = self.ask("spatial")
        try:
            fields = head["spatial"]
            sound = fields.pop("ambisonics")
            if sound is not None:
                sound = Ambisonics(**sound | {"channel_map": tuple(sound["channel_map"])})
            return SpatialInfo(**fields, ambisonics=sound)
        except (KeyError, TypeError, ValueError, AttributeError):
            raise _nonsense(self._name) from None

    def iter_frames(self, *arguments: Any, **options: Any) -> Iterator[Frames]:
        forms: list[Form] = [(np.uint8, (3, 4)), (np.float64, (1,))]
        for _, (data, times_s) in self._parts("iter_frames", arguments, options, forms):
            yield Frames(data, times_s)

    def iter_audio(self, *arguments: Any, **options: Any) -> Iterator[Audio]:
        for head, (samples,) in self._parts("iter_audio", arguments, options, [(np.float32, (2,))]):
            try:
                rate_hz, start_s, (low, high) = int(head["rate_hz"]), float(head["start_s"]), head["valid"]
                yield Audio(samples, rate_hz, start_s, (int(low), int(high)))
            except (KeyError, TypeError, ValueError, OverflowError):
                raise _nonsense(self._name) from None

    def _parts(
        self, method: str, arguments: tuple, options: dict[str, Any], forms: list[Form]
    ) -> Iterator[tuple[dict[str, Any], list[np.ndarray]]]:
        """The answers of an iterator over there."""
        iterator = self._decoder.new_number()
        self.ask("iterate", iterator, method, arguments, options)
        try:
            while (answer := self._decoder.ask(self._child, self._name, ("next", iterator)))[0]:
                head, parts = answer
                try:
                    arrays = [
                        np.frombuffer(part, kind).reshape(shape)
                        for part, shape, (kind, _) in zip(parts, head["shapes"], forms, strict=True)
                    ]
                except (KeyError, TypeError, ValueError):
                    raise _nonsense(self._name) from None
                if any(array.ndim not in axes for array, (_, axes) in zip(arrays, forms, strict=True)):
                    raise _nonsense(self._name)
                yield head, arrays
        finally:
            with contextlib.suppress(MediaError, OSError):
                self._decoder.ask(self._child, self._name, ("stop", iterator))


def _two(value: Any, name: str) -> list[Any]:
    if not isinstance(value, list) or len(value) != 2:
        raise _nonsense(name)
    return value


def _nonsense(name: str) -> MediaError:
    return MediaError(name, "worker-died", "the process that decoded it gave an answer that cannot be")
