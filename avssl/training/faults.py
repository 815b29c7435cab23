"""What can go wrong with the machine in the middle of a run, as one sentence that says what to do."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import distributed

from avssl.errors import AvsslError
from avssl.training.config import TrainConfig

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)
_NO_MEMORY = ("defaultcpuallocator", "not enough memory", "out of memory", "cublas_status_alloc_failed")
_NO_PRIMITIVE = "could not create a primitive"  # all that oneDNN says, where it gets no memory for one
_LOST_RANK = ("gloo", "nccl", "closed by peer", "reset by peer", "broken pipe", "socket", "tcpstore")
_NOT_WRITTEN = ("pytorchstreamwriter", "unexpected pos", "write failed")  # what torch.save makes of an OSError


@contextlib.contextmanager
def named(config: TrainConfig) -> Iterator[None]:
    """Turn errors of memory, disk and network in a run of this config into `AvsslError`.

    Whatever else happens is a defect of this software and passes as it is.
    """
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError) as error:
        raise _out_of_memory(config, error) from error
    except OSError as error:
        # Files of the run only: others are of data and libraries.
        ours = Path(str(error.filename)).is_relative_to(config.run.dir)
        if error.errno in _FULL or ours:
            raise _not_written(config, os.strerror(error.errno) if error.errno else str(error)) from error
        raise
    except RuntimeError as error:  # torch raises it for nearly everything: its text must tell
        text = str(error).lower()
        if any(word in text for word in _NO_MEMORY) or text.strip() == _NO_PRIMITIVE:
            raise _out_of_memory(config, error) from error
        if any(word in text for word in _NOT_WRITTEN):
            raise _not_written(config, _first_line(error)) from error
        if _ranks() > 1 and (isinstance(error, distributed.DistError) or any(word in text for word in _LOST_RANK)):
            raise _lost_rank(error) from error
        raise


def _out_of_memory(config: TrainConfig, error: BaseException) -> AvsslError:
    return AvsslError(
        f"out of memory with data.batch_size {config.data.batch_size} ({_first_line(error)}); raise run.accumulate to"
        " compute the batch in smaller parts, lower data.batch_size, or take smaller pictures; data.workers and"
        " data.prefetch hold batches too; the same command continues after the last checkpoint"
    )


def _not_written(config: TrainConfig, cause: str) -> AvsslError:
    return AvsslError(
        f"{config.run.dir}: cannot be written ({cause}); what was finished is kept: free space or allow writing, then"
        " run the same command again"
    )


def _lost_rank(error: RuntimeError) -> AvsslError:
    return AvsslError(
        f"another of the {_ranks()} processes of this run has ended or cannot be reached ({_first_line(error)}); its"
        " own message says why; the same command continues after the last checkpoint"
    )


def _first_line(error: BaseException) -> str:
    return str(error).strip().splitlines()[0][:200] if str(error).strip() else type(error).__name__


def _ranks() -> int:
    return distributed.get_world_size() if distributed.is_available() and distributed.is_initialized() else 1
