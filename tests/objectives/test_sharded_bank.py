"""Banks in half precision and over several ranks: the numbers of one whole bank."""

import threading

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from objective_tools import random_units
from torch import multiprocessing

from avssl.objectives import bank as bank_module
from avssl.objectives.bank import MemoryBank, ShardedMemoryBank
from avssl.training.distributed import ProcessGroup

ROWS, D = 13, 4


class ThreadRanks:
    """Ranks that are threads of this process: what one posts, the others find."""

    def __init__(self, rank, size, posted, barrier):
        self.rank, self.size, self.posted, self.barrier = rank, size, posted, barrier

    def _share(self, parts):
        self.posted[self.rank] = parts
        self.barrier.wait()
        everything = list(self.posted)
        self.barrier.wait()
        return everything

    def exchange(self, part, counts):
        assert len(part) == sum(counts) and len(counts) == self.size
        return torch.cat([parts[self.rank] for parts in self._share(part.split(list(counts)))])

    def gather(self, part, counts):
        assert len(part) == counts[self.rank]
        return torch.cat([parts[0] for parts in self._share([part])])


def on_ranks(size, work):
    """What `work(ranks)` returns on each of `size` threads."""
    posted, barrier = [None] * size, threading.Barrier(size)
    results, failures = [None] * size, []

    def run(rank):
        try:
            results[rank] = work(ThreadRanks(rank, size, posted, barrier))
        except Exception as failure:
            failures.append(failure)
            barrier.abort()

    threads = [threading.Thread(target=run, args=(rank,)) for rank in range(size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]
    return results


def reads_and_updates(bank, read, rank):
    """A little training: what is read differs from rank to rank, what is written does not."""
    rows = torch.tensor([3, 12, 3, 0, 7, 3, 12])
    found = []
    for step in range(3):
        bank.update((rows + step) % ROWS, random_units(7, D, seed=50 + step))
        found.append(read(torch.tensor([[12, 0, (3 + rank) % ROWS], [5, 5, step]])))
    return [*found, read(torch.zeros(0, 2, dtype=torch.int64))]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("size", [1, 2, 5, 17])
def test_shards_hold_the_numbers_of_the_whole(size, dtype, monkeypatch):
    monkeypatch.setattr(bank_module, "GATHERED_ROWS", 3)
    options = {"momentum": 0.3, "seed": 7, "dtype": dtype}

    def work(ranks):
        bank = ShardedMemoryBank(ROWS, D, rank=ranks.rank, size=ranks.size, **options)
        return (
            len(bank.shard),
            reads_and_updates(bank, lambda rows: bank.read(rows, ranks), ranks.rank),
            bank.whole(ranks),
        )

    results = on_ranks(size, work)
    held = [number for number, _, _ in results]
    assert sum(held) == ROWS and max(held) - min(held) <= 1
    for rank, (_, found, whole) in enumerate(results):
        bank = MemoryBank(ROWS, D, **options)
        expected = reads_and_updates(bank, bank.read, rank)
        assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))
        assert whole.dtype == dtype and torch.equal(whole, bank.memory if rank == 0 else bank.memory[:0])


def test_a_whole_bank_is_cut_again_by_another_number_of_ranks():
    whole = MemoryBank(ROWS, D, seed=3).memory

    def work(ranks):
        bank = ShardedMemoryBank(ROWS, D, rank=ranks.rank, size=ranks.size, seed=99, dtype=torch.bfloat16)
        bank.take(whole)
        return bank.whole(ranks)

    assert torch.equal(on_ranks(3, work)[0], whole.bfloat16())


def test_start_vectors_do_not_depend_on_the_cut(monkeypatch):
    """Also where the random vectors come in several blocks."""
    monkeypatch.setattr(bank_module, "START_ROWS", 5)
    whole = MemoryBank(ROWS, D, seed=4).memory
    shards = [ShardedMemoryBank(ROWS, D, rank=rank, size=4, seed=4).shard for rank in range(4)]
    assert torch.equal(torch.cat(shards), whole)
    torch.testing.assert_close(whole.norm(dim=1), torch.ones(ROWS))
    assert len(whole.unique(dim=0)) == ROWS


@pytest.mark.parametrize(("dtype", "error"), [(torch.float16, 2**-11), (torch.bfloat16, 2**-8)])
def test_half_storage_follows_the_full_bank_to_its_rounding(dtype, error):
    full, half = MemoryBank(ROWS, 32, seed=1), MemoryBank(ROWS, 32, seed=1, dtype=dtype)
    generator = torch.Generator().manual_seed(2)
    for step in range(40):
        rows = torch.randint(ROWS, (6,), generator=generator)
        embeddings = random_units(6, 32, seed=100 + step)
        full.update(rows, embeddings)
        half.update(rows, embeddings)
    everything = torch.arange(ROWS)
    assert half.memory.dtype == dtype and half.read(everything).dtype == torch.float32
    # Each update rounds once, and momentum 0.5 halves what is left of the earlier ones.
    assert (half.read(everything) - full.read(everything)).abs().max() < 2 * error
    again = MemoryBank(ROWS, 32, seed=5, dtype=dtype)
    again.load_state_dict(half.state_dict())
    assert torch.equal(again.memory, half.memory)
    before = half.memory.clone()
    half.update(everything[:0], torch.zeros(0, 32))
    assert torch.equal(half.memory, before)


@given(st.lists(st.integers(0, ROWS - 1), max_size=25), st.sampled_from([torch.float32, torch.bfloat16]))
@settings(max_examples=50, deadline=None)
def test_of_repeated_rows_the_last_sample_counts(rows, dtype):
    bank, slow = MemoryBank(ROWS, D, seed=1, dtype=dtype), MemoryBank(ROWS, D, seed=1, dtype=dtype)
    embeddings = random_units(len(rows), D, seed=2)
    bank.update(torch.tensor(rows, dtype=torch.int64), embeddings)
    for row, position in {row: position for position, row in enumerate(rows)}.items():
        slow.update(torch.tensor([row]), embeddings[position : position + 1])
    torch.testing.assert_close(bank.memory, slow.memory, rtol=1e-6 if dtype == torch.float32 else 0.01, atol=1e-6)


def _work(rank, folder):
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2)
    ranks = ProcessGroup()
    results = []
    for dtype in (torch.float32, torch.bfloat16):
        bank = ShardedMemoryBank(ROWS, D, rank=rank, size=2, momentum=0.3, seed=7, dtype=dtype)
        found = reads_and_updates(bank, lambda rows, bank=bank: bank.read(rows, ranks), rank)
        results.append((found, bank.whole(ranks)))
    torch.save(results, f"{folder}/{rank}.pt")
    ranks.close()


def test_two_gloo_processes_equal_one_whole_bank(tmp_path):
    multiprocessing.spawn(_work, (str(tmp_path),), nprocs=2)
    for rank in range(2):
        results = torch.load(tmp_path / f"{rank}.pt")
        for dtype, (found, whole) in zip((torch.float32, torch.bfloat16), results, strict=True):
            bank = MemoryBank(ROWS, D, momentum=0.3, seed=7, dtype=dtype)
            expected = reads_and_updates(bank, bank.read, rank)
            assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))
            assert torch.equal(whole, bank.memory if rank == 0 else bank.memory[:0])
