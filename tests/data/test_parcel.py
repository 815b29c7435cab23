"""A batch that crosses a process border arrives as it was sent, and leaves nothing behind."""

import gc
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest
import torch

from avssl.data import parcel

pytestmark = pytest.mark.skipif(not parcel.can_send(), reason="this system has no files in memory")


def arrays(seed):
    generator = np.random.default_rng(seed)
    return {
        "video": generator.integers(0, 256, (3, 1, 4, 31, 17, 3), np.uint8),
        "row": generator.integers(0, 9, 3),
        "flip": generator.random((3, 1)) < 0.5,
        "audio": generator.random((3, 1, 1, 1001), np.float32)[:, :, :, ::2],  # not contiguous
        "order": generator.permuted(np.arange(4, dtype=np.uint8)),
    }


def send(parcels, done):
    for seed in range(3):
        parcels.put(parcel.Parcel(arrays(seed)))
    done.wait()  # the files can be fetched only while their sender lives


def open_files():
    gc.collect()  # what other tests have left behind
    return len(list(Path("/proc/self/fd").iterdir()))


def test_parcels_arrive_whole_and_independent_and_close_their_files():
    context = get_context("spawn")
    parcels, done = context.SimpleQueue(), context.Event()
    process = context.Process(target=send, args=(parcels, done))
    process.start()
    received = [parcels.get()]
    before = open_files()
    received += [parcels.get(), parcels.get()]
    open_after = open_files()
    done.set()
    process.join()
    assert open_after - before <= 2  # mmap keeps one for each
    for seed, batch in enumerate(received):
        for name, array in arrays(seed).items():
            assert isinstance(batch[name], torch.Tensor)
            assert np.array_equal(batch[name].numpy(), array) and batch[name].numpy().dtype == array.dtype
    received[0]["row"] += 1  # may be written to, as any tensor
    kept = received[1]["video"][1]
    del received, batch
    assert open_files() <= open_after - 2
    assert np.array_equal(kept.numpy(), arrays(1)["video"][1])


def test_a_parcel_that_is_never_sent_closes_its_file():
    before = open_files()
    unsent = parcel.Parcel(arrays(0))
    assert open_files() == before + 1
    del unsent
    assert open_files() == before
