"""Worker processes that may crash or hang: each runs one task, so a death or a timeout names its task.

`concurrent.futures` gives up its whole pool when a process dies and cannot end a task that hangs; decoders do both.
"""

from __future__ import annotations

import contextlib
import gc
import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any

from avssl.errors import AvsslError

_READY = "ready"
_ATTEMPTS = 2  # a task whose process died gets a second chance: the system may have been short of memory


@dataclass(frozen=True)
class Lost:
    """Stands for the result of a task whose process died twice (`worker-died`) or took too long (`timeout`)."""

    reason: str
    detail: str


@dataclass
class _Worker:
    process: BaseProcess
    connection: Connection
    ready: bool = False
    task: Any = None
    attempt: int = 0
    deadline_s: float = 0.0


class WorkerPool:
    """`workers` processes that run `function(task)`; both must be picklable and `function` should not raise.

    Processes are spawned, not forked: they hold nothing of the parent and end by themselves when it is gone.
    """

    def __init__(self, function: Callable[[Any], Any], workers: int, timeout_s: float):
        self._function = function
        self._timeout_s = timeout_s
        self._context = multiprocessing.get_context("spawn")
        self._workers = [self._start() for _ in range(workers)]

    def __enter__(self) -> WorkerPool:
        return self

    def __exit__(self, *exc: object) -> None:
        for worker in self._workers:
            self._end(worker)

    def free(self) -> int:
        """How many tasks can be submitted now."""
        return sum(worker.task is None for worker in self._workers)

    def submit(self, task: Any) -> None:
        worker = next(worker for worker in self._workers if worker.task is None)
        worker.task, worker.attempt = task, 1
        if worker.ready:
            self._give(worker)

    def wait(self) -> list[tuple[Any, Any]]:
        """Block until something ended; returns (task, result) pairs, possibly none: call it again."""
        busy = [worker.deadline_s for worker in self._workers if worker.ready and worker.task is not None]
        pause_s = max(0.0, min(busy) - time.monotonic()) if busy else None
        awake = set(wait([worker.connection for worker in self._workers], pause_s))
        ended: list[tuple[Any, Any]] = []
        for number, worker in enumerate(self._workers):
            if worker.connection in awake:
                ended += self._hear(number, worker)
            elif worker.ready and worker.task is not None and time.monotonic() > worker.deadline_s:
                ended.append((worker.task, Lost("timeout", f"took more than {self._timeout_s:g} s")))
                self._replace(number)
        return ended

    def _hear(self, number: int, worker: _Worker) -> Sequence[tuple[Any, Any]]:
        try:
            message = worker.connection.recv()
        except (EOFError, OSError):
            return self._bury(number, worker)
        if not worker.ready:
            worker.ready = True
            if worker.task is not None:
                self._give(worker)
            return []
        task, worker.task = worker.task, None
        return [(task, message)]

    def _bury(self, number: int, worker: _Worker) -> Sequence[tuple[Any, Any]]:
        worker.process.join()
        code = worker.process.exitcode or 0
        cause = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        if not worker.ready:
            raise AvsslError(f"a worker process ended before it could start ({cause}); see its message above")
        task, attempt = worker.task, worker.attempt
        self._replace(number)
        if task is None:
            return []
        if attempt >= _ATTEMPTS:
            return [(task, Lost("worker-died", f"the process that decoded it died twice ({cause})"))]
        self._workers[number].task, self._workers[number].attempt = task, attempt + 1
        return []

    def _give(self, worker: _Worker) -> None:
        worker.deadline_s = time.monotonic() + self._timeout_s
        with contextlib.suppress(OSError):  # it died in the meantime: wait() will see that
            worker.connection.send(worker.task)

    def _start(self) -> _Worker:
        ours, theirs = self._context.Pipe()
        process = self._context.Process(target=_work, args=(theirs, self._function), daemon=True)
        process.start()
        theirs.close()  # so that its death is the end of our side
        return _Worker(process, ours)

    def _replace(self, number: int) -> None:
        self._end(self._workers[number])
        self._workers[number] = self._start()

    @staticmethod
    def _end(worker: _Worker) -> None:
        worker.process.kill()
        worker.process.join()
        worker.connection.close()


def _work(connection: Connection, function: Callable[[Any], Any]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent
    with contextlib.suppress(EOFError, BrokenPipeError, ConnectionResetError):  # the parent is gone
        connection.send(_READY)
        while True:
            connection.send(function(connection.recv()))
            gc.collect()  # decoders lie in reference cycles; the collector does not know how much memory they hold
    os._exit(0)  # nothing to flush; skips the destructors of decoders
