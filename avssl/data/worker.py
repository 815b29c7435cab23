"""How the loader's worker processes are started, and how they live."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from typing import Any

import torch

import avssl.data.dataset  # noqa: F401  - loaded once, before workers are forked


def process_options(prefetch: int) -> dict[str, Any]:
    """Arguments of torch's DataLoader for workers.

    Never a fork of the main process: it could copy a lock that one of torch's threads holds, and hang.
    """
    method = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"
    context = multiprocessing.get_context(method)
    context.set_forkserver_preload(["avssl.data.forkserver"])
    return {"multiprocessing_context": context, "prefetch_factor": prefetch, "worker_init_fn": start_worker}


def start_worker(number: int) -> None:
    """Called first in each worker."""
    torch.set_num_threads(1)  # there is one worker a core already
    leave_signals_to_main()
    threading.Thread(target=_end_with_main, daemon=True).start()


def _end_with_main() -> None:
    """End when the main process has, also by SIGKILL. torch's own watch looks at the parent, which is the server that
    workers are forked from; and that one lives as long as any of them."""
    main = multiprocessing.parent_process()
    assert main is not None
    main.join()
    os._exit(1)


def leave_signals_to_main() -> None:
    """A cluster sends SIGTERM to every process of a job, and Ctrl-C reaches all of a terminal's. The main process then
    writes a checkpoint; the others must live until it lets them go (and they end by themselves when it is gone)."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def is_lost_worker(error: Exception) -> bool:
    """Whether torch's DataLoader raised this because a worker is gone: it says so, or what the worker had sent can no
    longer be fetched from it. Errors raised inside a worker come with "Caught ..." and its traceback instead."""
    if isinstance(error, RuntimeError):
        return str(error).startswith("DataLoader worker")
    return not str(error).startswith("Caught ")
