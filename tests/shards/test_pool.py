"""Workers that crash or hang name their task and the others go on."""

import os
import signal
import time
from functools import partial
from pathlib import Path

import pytest

from avssl.errors import AvsslError
from avssl.shards.answer import to_answer
from avssl.shards.build import _in_order
from avssl.shards.options import BuildOptions
from avssl.shards.pool import Lost, WorkerPool
from avssl.shards.sources import Entry
from avssl.shards.transcode import Clip, Outcome, Rejected, sample_of
from avssl.shards.write import Cursor


def act(task, descriptor, folder="."):
    kind, number = task
    if kind == "die":
        os.kill(os.getpid(), signal.SIGSEGV)
    if kind == "die once" and not (Path(folder) / "died").exists():
        (Path(folder) / "died").touch()
        os._exit(3)
    if kind == "hang":
        time.sleep(600)
    return number * 10, []


class Cyclic:
    alive = 0

    def __init__(self):
        self.itself = self
        Cyclic.alive += 1

    def __del__(self):
        Cyclic.alive -= 1


def leave_a_cycle(task, descriptor):
    return Cyclic().alive, []


def test_nothing_of_a_task_stays_behind():
    with WorkerPool(leave_a_cycle, workers=1, timeout_s=30.0) as pool:
        assert {answer for answer, _ in run_all(pool, range(10)).values()} == {1}


class EndsOnArrival:
    """Its loading kills the process: a worker that cannot even start."""

    def __reduce__(self):
        return os._exit, (7,)


def run_all(pool, tasks):
    waiting, results = list(tasks), {}
    while len(results) < len(tasks):
        while waiting and pool.free():
            pool.submit(waiting.pop(0))
        results.update(pool.wait())
    return results


def test_deaths_and_hangs_are_of_their_task_only(tmp_path):
    tasks = [("ok", 1), ("die", 2), ("ok", 3), ("hang", 4), ("die once", 5), *(("ok", n) for n in range(6, 20))]
    with WorkerPool(partial(act, folder=str(tmp_path)), workers=2, timeout_s=4.0) as pool:
        results = run_all(pool, tasks)
        children = [worker.child for worker in pool._workers]
    died, hung = results.pop(("die", 2)), results.pop(("hang", 4))
    assert isinstance(died, Lost) and died.reason == "worker-died" and "SIGSEGV" in died.detail
    assert isinstance(hung, Lost) and hung.reason == "timeout"
    assert results == {task: (task[1] * 10, []) for task in tasks if task[1] not in (2, 4)}
    assert not any(child.is_alive() for child in children)


def test_worker_that_cannot_start_is_an_error_not_a_loop():
    with pytest.raises(AvsslError, match="before it could start"), WorkerPool(EndsOnArrival(), 1, 10.0) as pool:
        run_all(pool, [("ok", 1)])


def dies_on_some(task, descriptor):
    """Stands for decoding: entry 1 crashes at once, 3 at its second clip, 4 is rejected, the others have 3 clips."""
    if (task.number, task.clip) in {(1, 0), (3, 1)}:
        os.kill(os.getpid(), signal.SIGKILL)
    if task.number == 4:
        return to_answer(Outcome(1, Rejected("corrupt", "x")))
    start_ms = 1000 * task.clip
    return to_answer(Outcome(3, Clip({}, sample_of(task.entry, start_ms, start_ms + 1000, None, None))))


@pytest.mark.parametrize("start", [Cursor(), Cursor(3, 1, 3)])
def test_order_and_crashes(start, tmp_path):
    entries = [Entry(f"{n}.mp4", str(tmp_path / "any"), start_s=100.0) for n in range(6)]
    (tmp_path / "any").touch()
    expected = []
    for n in range(6):
        expected += [(n, 0)] if n in (1, 4) else [(n, clip) for clip in range(3)]
    expected = [place for place in expected if place >= (start.entry, start.clip)]
    with WorkerPool(dies_on_some, workers=2, timeout_s=30) as pool:
        done = list(_in_order(entries, start, pool, BuildOptions(clip_s=10.0), window=4))
    assert [(task.number, task.clip) for task, _, _ in done] == expected
    for (task, result, following), after in zip(done, [*expected[1:], (6, 0)], strict=True):
        assert following[:2] == after
        if (task.number, task.clip) in {(1, 0), (3, 1)}:
            assert result.reason == "worker-died" and result.start_s == 100.0 + 10.0 * task.clip
        elif task.number != 4:
            assert (result.sample["source"], result.sample["start_s"]) == (f"{task.number}.mp4", float(task.clip))
