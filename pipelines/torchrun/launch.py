"""torchrun for `avssl-train`: it passes signals on to the ranks and gives their exit code back.

    python pipelines/torchrun/launch.py --nnodes 2 --nproc-per-node 8 ... -m avssl.cli.train --config X.yaml

Arguments are torchrun's. What differs: SIGTERM and SIGUSR1 reach the ranks of this node as a request to stop, and these
have as long as the scheduler allows to write their checkpoint (torchrun would kill them after 30 s); and a run that
stopped so ends with 75, so that a scheduler can tell "run it again" from "it failed" (torchrun: 1 for both).
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from pathlib import Path

EXIT_STOPPED = 75  # as of avssl-train
STOP_SIGNALS = (signal.SIGTERM, signal.SIGUSR1)


class Launcher:
    """One torchrun agent in this process."""

    def __init__(self) -> None:
        self.asked_to_stop = False

    def run(self, arguments: list[str]) -> int:
        from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
        from torch.distributed.run import main as torchrun

        for number in STOP_SIGNALS:
            signal.signal(number, self._pass_on)
        try:
            torchrun(["--signals-to-handle", "SIGINT,SIGHUP", *arguments])
        except ChildFailedError as error:
            codes = {failure.exitcode for failure in error.failures.values()}
            # A rank that was still starting dies of the signal, and then others of its absence: stopped all the same.
            return EXIT_STOPPED if self.asked_to_stop or codes == {EXIT_STOPPED} else 1
        return 0

    def _pass_on(self, *_: object) -> None:
        """Ranks take a second request as they take the first."""
        self.asked_to_stop = True
        for rank in _ranks():
            with contextlib.suppress(ProcessLookupError):
                os.kill(rank, signal.SIGUSR1)


def _ranks() -> list[int]:
    """The processes that the agent has started, not the helpers of Python's multiprocessing."""
    children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    found = []
    for child in children:
        with contextlib.suppress(FileNotFoundError):
            if b"avssl" in Path(f"/proc/{child}/cmdline").read_bytes():
                found.append(int(child))
    return found


if __name__ == "__main__":
    sys.exit(Launcher().run(sys.argv[1:]))
