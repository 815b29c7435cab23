"""Worker processes that may crash or hang: each runs one task, so a death or a timeout names its task.

`concurrent.futures` gives up its whole pool when a process dies and cannot end a task that hangs; decoders do both.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.connection import wait
from typing import Any

from avssl.errors import AvsslError
from avssl.sandbox.bounds import Bounds
from avssl.sandbox.child import Child, DeadError, Function

_ATTEMPTS = 2  # a task whose process died gets a second chance: the system may have been short of memory


@dataclass(frozen=True)
class Lost:
    """Stands for the result of a task whose process died twice (`worker-died`) or took too long (`timeout`)."""

    reason: str
    detail: str


@dataclass
class _Worker:
    child: Child
    task: Any = None
    descriptor: int | None = None
    attempt: int = 0
    deadline_s: float = 0.0

    @property
    def ready(self) -> bool:
        return self.child.protections is not None


class WorkerPool:
    """`workers` processes that run `function(task, descriptor)`; it must be picklable and should not raise.

    It answers plain data and bytes (see `avssl.sandbox.child`). With `bounds` the processes are confined.
    """

    def __init__(self, function: Function, workers: int, timeout_s: float, bounds: Bounds | None = None):
        self._function, self._timeout_s, self._bounds = function, timeout_s, bounds
        self._workers = [self._start() for _ in range(workers)]

    def __enter__(self) -> WorkerPool:
        return self

    def __exit__(self, *exc: object) -> None:
        for worker in self._workers:
            self._release(worker)
            worker.child.end()

    def free(self) -> int:
        """How many tasks can be submitted now."""
        return sum(worker.task is None for worker in self._workers)

    def submit(self, task: Any, descriptor: int | None = None) -> None:
        """Give a task to a free process, and with it an open file, which this pool closes when the task has ended."""
        worker = next(worker for worker in self._workers if worker.task is None)
        worker.task, worker.descriptor, worker.attempt = task, descriptor, 1
        if worker.ready:
            self._give(worker)

    def wait(self) -> list[tuple[Any, Any]]:
        """Block until something ended; returns (task, answer or Lost) pairs, possibly none: call it again.

        An answer is a pair: plain data and a list of bytes.
        """
        busy = [worker.deadline_s for worker in self._workers if worker.ready and worker.task is not None]
        pause_s = max(0.0, min(busy) - time.monotonic()) if busy else None
        awake = set(wait([worker.child.socket for worker in self._workers], pause_s))
        ended: list[tuple[Any, Any]] = []
        for number, worker in enumerate(self._workers):
            if worker.child.socket in awake:
                ended += self._hear(number, worker)
            elif worker.ready and worker.task is not None and time.monotonic() > worker.deadline_s:
                ended += self._late(number, worker)
        return ended

    def _hear(self, number: int, worker: _Worker) -> Sequence[tuple[Any, Any]]:
        if not worker.ready:
            try:
                worker.child.hear_ready()
            except (DeadError, TimeoutError) as error:
                raise AvsslError(
                    f"a worker process ended before it could start ({error}); see its message above"
                ) from None
            if worker.task is not None:
                self._give(worker)
            return []
        try:
            answer = worker.child.receive(worker.deadline_s)
        except DeadError as error:
            return self._bury(number, worker, str(error))
        except TimeoutError:
            return self._late(number, worker)
        return [(self._release(worker), answer)]

    def _late(self, number: int, worker: _Worker) -> Sequence[tuple[Any, Any]]:
        task = self._release(worker)
        self._replace(number)
        return [(task, Lost("timeout", f"took more than {self._timeout_s:g} s"))]

    def _bury(self, number: int, worker: _Worker, cause: str) -> Sequence[tuple[Any, Any]]:
        again = worker.task is not None and worker.attempt < _ATTEMPTS
        self._replace(number)
        if again:
            replaced = self._workers[number]
            replaced.task, replaced.descriptor, replaced.attempt = worker.task, worker.descriptor, worker.attempt + 1
            return []
        task = self._release(worker)
        return (
            [] if task is None else [(task, Lost("worker-died", f"the process that decoded it died twice ({cause})"))]
        )

    def _give(self, worker: _Worker) -> None:
        worker.deadline_s = time.monotonic() + self._timeout_s
        worker.child.send(worker.task, worker.descriptor)

    @staticmethod
    def _release(worker: _Worker) -> Any:
        """The task of a worker, which then has none."""
        task, worker.task = worker.task, None
        if worker.descriptor is not None:
            os.close(worker.descriptor)
            worker.descriptor = None
        return task

    def _start(self) -> _Worker:
        return _Worker(Child(self._function, self._bounds))

    def _replace(self, number: int) -> None:
        self._workers[number].child.end()
        self._workers[number] = self._start()
