"""A process that runs one function for its parent, confined or not. It may crash, hang or lie: the parent goes on."""

from __future__ import annotations

import contextlib
import gc
import multiprocessing
import os
import pickle
import signal
import socket
import time
from collections.abc import Callable, Sequence
from typing import Any

from avssl.sandbox import wire
from avssl.sandbox.bounds import Bounds
from avssl.sandbox.confine import confine

Buffer = bytes | memoryview
Reply = tuple[Any, Sequence[Buffer]]
"""An answer: plain data (what JSON holds), and bytes."""
Function = Callable[[Any, int | None], Reply]
"""Gets a request and the descriptor of the open file that came with it (closed when it returns); should not raise."""

_MOST_REPLY_BYTES = 2 << 30
_STARTING_S = 120.0


class DeadError(Exception):
    """The process has ended, or answered what cannot be an answer; the message says how."""


class Child:
    """A process for `function`, which must be picklable.

    Requests go there as pickles, which is safe: they are this process's own. Answers come back as plain data. With
    `bounds` the process is confined before it sees its first request. With `tidy` it collects garbage after each one:
    decoders lie in reference cycles, and the collector does not know how much memory they hold. Processes are spawned,
    not forked: they hold nothing of the parent and end by themselves when it is gone.
    """

    def __init__(self, function: Function, bounds: Bounds | None, *, tidy: bool = True):
        self.socket, theirs = wire.pair()
        context = multiprocessing.get_context("spawn")
        # The function is unpickled over there in its own time: importing its modules must not start threads first.
        self._process = context.Process(
            target=_live, args=(theirs, pickle.dumps(function), bounds, tidy), daemon=True, name="avssl-decoder"
        )
        self._process.start()
        theirs.close()  # so that its death is the end of our side
        self.protections: list[str] | None = None
        """What holds there (see `avssl.sandbox.confine`), once it is ready."""

    def hear_ready(self) -> None:
        """Take the message that it is ready. Raises DeadError or TimeoutError."""
        self.protections, _ = self.receive(time.monotonic() + _STARTING_S)

    def send(self, request: Any, descriptor: int | None = None) -> None:
        """Ask; if it has died meanwhile, `receive` will say so. An open file may go with the request."""
        with contextlib.suppress(OSError):
            self.socket.settimeout(None)
            wire.send(self.socket, None, [pickle.dumps(request)], descriptor)

    def receive(self, deadline_s: float) -> tuple[Any, list[bytearray]]:
        """The answer. Raises DeadError, or TimeoutError at `deadline_s` of the monotonic clock."""
        try:
            return wire.receive(self.socket, deadline_s=deadline_s, most_bytes=_MOST_REPLY_BYTES)
        except wire.WireError as error:
            self._process.join(1.0)
            code = self._process.exitcode
            if code is None:
                raise DeadError(str(error)) from None
            raise DeadError(signal.Signals(-code).name if code < 0 else f"exit code {code}") from None

    def is_alive(self) -> bool:
        return self._process.is_alive()

    def end(self) -> None:
        """Kill it, whatever it does."""
        self._process.kill()
        self._process.join()
        self.socket.close()

    @property
    def pid(self) -> int | None:
        return self._process.pid


def _live(connection: socket.socket, pickled: bytes, bounds: Bounds | None, tidy: bool) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent
    for name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[name] = "1"  # NumPy's threads would stay outside of what confines this one
    function: Function = pickle.loads(pickled)
    protections = [] if bounds is None else confine(bounds, keep=[connection.fileno()])
    try:
        wire.send(connection, protections)
        while True:
            _, (request,), descriptor = wire.receive_with_file(connection)
            _answer(connection, function, pickle.loads(request), descriptor)
            if tidy:
                gc.collect()
    except (wire.WireError, OSError):  # the parent is gone
        pass
    os._exit(0)  # nothing to flush; skips the destructors of decoders


def _answer(connection: socket.socket, function: Function, request: Any, descriptor: int | None) -> None:
    try:
        head, parts = function(request, descriptor)
        wire.send(connection, head, parts)
    finally:
        if descriptor is not None:
            os.close(descriptor)
