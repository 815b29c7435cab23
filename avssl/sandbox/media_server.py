"""The side of `avssl.sandbox.decoder` that is confined: holds open media and answers what it is asked."""

from __future__ import annotations

import dataclasses
import gc
import os
from collections.abc import Iterator
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import numpy as np

from avssl.errors import MediaError
from avssl.media.limits import Limits
from avssl.media.regular import HandedFile
from avssl.sandbox.child import Reply
from avssl.sandbox.confine import limit_cpu

if TYPE_CHECKING:
    from avssl.media import Media


class MediaServer:
    """Requests are tuples: a verb, the number of a medium or an iterator, and what the verb needs."""

    def __init__(self, limits: Limits, cpu_s: float):
        self._limits, self._cpu_s = limits, cpu_s
        self._media: dict[int, Media] = {}
        self._files: dict[int, int] = {}  # descriptors
        self._parts: dict[int, Iterator[Any]] = {}

    def __call__(self, request: tuple, descriptor: int | None) -> Reply:
        verb, number, *rest = request
        limit_cpu(self._cpu_s)
        try:
            return getattr(self, f"_{verb}")(number, *rest, **({} if descriptor is None else {"open_file": descriptor}))
        except MediaError as error:
            return {"media": [error.reason, error.detail]}, []
        except OSError as error:
            return {"system": [error.errno, error.strerror or str(error)]}, []
        except MemoryError:
            return {"media": ["too-large", "needs more memory than the sandbox gives"]}, []
        except Exception as error:  # one odd file among millions must not stop a run; the reason shows where to look
            return {"media": ["unexpected", f"{type(error).__name__}: {error}"]}, []

    def _open(self, number: int, name: str, *, open_file: int) -> Reply:
        from avssl.media import open_media

        descriptor = os.dup(open_file)  # ours to keep: the other one is closed after this request
        try:
            self._media[number] = open_media(HandedFile(descriptor, name), limits=self._limits, name=name)
        except BaseException:
            os.close(descriptor)
            raise
        self._files[number] = descriptor
        return {}, []

    def _info(self, number: int) -> Reply:
        info = dataclasses.asdict(self._media[number].info)
        if info["video"]:
            ticks: Fraction = info["video"]["time_base"]
            info["video"]["time_base"] = [ticks.numerator, ticks.denominator]
        return {"info": info}, []

    def _spatial(self, number: int) -> Reply:
        return {"spatial": dataclasses.asdict(self._media[number].spatial)}, []

    def _iterate(self, number: int, iterator: int, method: str, arguments: tuple, options: dict[str, Any]) -> Reply:
        self._parts[iterator] = getattr(self._media[number], method)(*arguments, **options)
        return {}, []

    def _next(self, iterator: int) -> Reply:
        part = next(self._parts[iterator], None)
        if part is None:
            del self._parts[iterator]
            return {}, []
        if hasattr(part, "data"):
            arrays = [part.data, part.times_s]
            rest: dict[str, Any] = {}
        else:
            arrays = [part.samples]
            rest = {"rate_hz": part.rate_hz, "start_s": part.start_s, "valid": list(part.valid)}
        rest["shapes"] = [array.shape for array in arrays]
        return rest, [np.ascontiguousarray(array).data for array in arrays]

    def _stop(self, iterator: int) -> Reply:
        self._parts.pop(iterator, None)
        return {}, []

    def _close(self, number: int) -> Reply:
        if number in self._media:
            self._media.pop(number).close()
            os.close(self._files.pop(number))
            gc.collect()  # once a file, not once a request: it takes as long as decoding some pictures
        return {}, []
