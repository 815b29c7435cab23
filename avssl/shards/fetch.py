"""Fetch a file from one of several addresses: go on after the last byte when a connection breaks, check the hash."""

from __future__ import annotations

import hashlib
import http.client
import logging
import os
import random
import re
import time
import urllib.error
import urllib.request
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import IO, Any

from avssl.errors import ConfigError, ShardError
from avssl.shards.options import CacheConfig

_BLOCK = 1 << 20
_PROGRESS = 1 << 16  # an attempt that brought fewer bytes, and not the last ones, counts as failed
_LONGEST_PAUSE_S = 60.0
_TRY_AGAIN = {408, 425, 429, 500, 502, 503, 504}  # other HTTP errors are answers
_jitter = random.Random()  # the global one belongs to the run

log = logging.getLogger("avssl.shards")


class _RefusedError(Exception):
    """An address that will not give the file, however often it is asked."""


class _NoSuchRangeError(Exception):
    """The file at an address ends before, or where, the part that is here does."""


def fetch(urls: Sequence[str], part: Path, options: CacheConfig, *, sha256: str | None, size: int | None) -> None:
    """Complete the file `part` from addresses that all have the same bytes.

    What `part` holds is kept. Each attempt asks the next address for what is missing after the last byte that came.
    `ShardError` after `options.attempts` attempts in a row without progress, when no address is left that may have the
    file, or when the disk refuses. sha256, size: of the whole; None: not known.
    """
    left = list(urls)
    turn = failed = 0
    with _Part(part) as content:
        if content.size and content.hexdigest() == sha256:  # whole, from a process that was killed just then
            return
        while True:
            url = left[turn % len(left)]
            before = content.size
            cause = _attempt(url, content, options.timeout_s, size)
            if cause is None and sha256 is not None and content.hexdigest() != sha256:
                cause = "its bytes are not the ones of the index (sha256)"
                if content.sources == {url}:  # else any of them may have given the wrong ones
                    cause = _RefusedError(f"{cause}; they were changed or damaged there")
                content.clear()
            if cause is None:
                return
            if isinstance(cause, _RefusedError):
                left.remove(url)
                log.warning("%s: %s", url, cause)
                if not left:
                    raise ShardError(f"{url}: cannot be fetched ({cause}); {_cure(urls)}")
                continue
            failed = 0 if content.size - before >= _PROGRESS else failed + 1
            if failed >= options.attempts:
                raise ShardError(f"{url}: cannot be fetched ({cause}; tried {failed} times in a row); {_cure(urls)}")
            turn += 1
            pause_s = min(_LONGEST_PAUSE_S, options.pause_s * 2.0 ** max(0, failed - 1)) * _jitter.uniform(0.5, 1.0)
            following = left[turn % len(left)]
            log.warning("%s: %s; going on at byte %d from %s in %.1f s", url, cause, content.size, following, pause_s)
            time.sleep(pause_s)


def _attempt(url: str, content: _Part, timeout_s: float, size: int | None) -> str | _RefusedError | None:
    """Append what is missing; returns what went wrong."""
    if size is not None and content.size == size:
        return None
    try:
        with closing(_bytes_after(url, content.size, timeout_s)) as blocks:
            for block in blocks:
                content.append(block, url)
                if size is not None and content.size > size:
                    content.clear()
                    return _RefusedError(f"it has more than the {size} bytes of the index")
    except _RefusedError as error:
        return error
    except _NoSuchRangeError:
        cause = f"it has no more than the {content.size} bytes that are here, and they are not the file"
        content.clear()
        return cause
    except (OSError, http.client.HTTPException) as error:
        return str(getattr(error, "reason", "") or error) or type(error).__name__
    if size is not None and content.size < size:
        return f"it ended after {content.size} of {size} bytes"
    return None


class _Part:
    """The beginning of a file, on disk, with its hash so far and the addresses it came from."""

    def __init__(self, path: Path):
        self.path = path
        self.sources: set[str] = set()
        self.size, self._digest = 0, hashlib.sha256()
        self._file: IO[bytes] = path.open("a+b", buffering=0)
        self._file.seek(0)
        while block := self._file.read(_BLOCK):
            self._digest.update(block)
            self.size += len(block)
            self.sources = {"an earlier process"}

    def __enter__(self) -> _Part:
        return self

    def __exit__(self, *exc: object) -> None:
        self._file.close()

    def append(self, block: bytes, url: str) -> None:
        rest = memoryview(block)
        try:
            while rest:
                rest = rest[self._file.write(rest) :]
        except OSError as error:
            raise ShardError(
                f"{self.path}: cannot be written ({os.strerror(error.errno or 0)}); free space, lower"
                " data.cache.size_gb, or set data.cache.dir to another disk"
            ) from error
        self._digest.update(block)
        self.size += len(block)
        self.sources.add(url)

    def clear(self) -> None:
        self._file.truncate(0)
        self.sources.clear()
        self.size, self._digest = 0, hashlib.sha256()

    def hexdigest(self) -> str:
        return self._digest.hexdigest()


def _bytes_after(url: str, start: int, timeout_s: float) -> Generator[bytes, None, None]:
    """The bytes of a file from `start` on; an error of network if they end early."""
    if url.startswith(("http://", "https://")):
        yield from _http(url, start, timeout_s)
    else:
        yield from _other_protocol(url, start)


def _http(url: str, start: int, timeout_s: float) -> Iterator[bytes]:
    headers = {"User-Agent": "avssl", "Accept-Encoding": "identity"} | ({"Range": f"bytes={start}-"} if start else {})
    try:
        answer = urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=timeout_s)
    except urllib.error.HTTPError as error:
        with error:
            if error.code == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
                raise _NoSuchRangeError from error
            if error.code in _TRY_AGAIN:
                raise OSError(f"HTTP {error.code} {error.reason}") from error
            raise _RefusedError(f"HTTP {error.code} {error.reason}") from error
    except ValueError as error:  # no address at all
        raise _RefusedError(str(error)) from error
    with answer:
        begins, length = _place(answer)
        if begins > start:
            raise _RefusedError(f"it answered from byte {begins} on when asked from byte {start}")
        come = 0
        while block := answer.read(_BLOCK):
            skipped = min(len(block), max(0, start - begins - come))  # a server without ranges begins at the beginning
            come += len(block)
            if skipped < len(block):
                yield block[skipped:]
        if length is not None and come < length:
            raise OSError(f"the connection broke off after {come} of {length} bytes")


def _place(answer: Any) -> tuple[int, int | None]:
    """Where an answer begins in the file, and how many bytes it should have."""
    length = answer.headers.get("Content-Length", "")
    range_given = re.match(r"bytes (\d+)-", answer.headers.get("Content-Range", ""))
    begins = int(range_given[1]) if answer.status == 206 and range_given else 0
    return begins, int(length) if length.isdigit() else None


def _other_protocol(url: str, start: int) -> Iterator[bytes]:
    """s3, gs, … : what fsspec knows."""
    import fsspec

    try:
        opened = fsspec.open(url, "rb").open()
    except (ImportError, ValueError) as error:  # no such protocol, or its package is not installed
        raise ConfigError(f"{url}: {error}") from error
    except FileNotFoundError as error:
        raise _RefusedError("it is not there") from error
    with opened as file:
        file.seek(start)
        while block := file.read(_BLOCK):
            yield block


def _cure(urls: Sequence[str]) -> str:
    return "see that its server runs" if len(urls) > 1 else "see that its server runs, or give a second address of it"
