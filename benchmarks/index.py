"""What a set of very many clips costs before the first batch: time to open its index, memory of all processes.

    python -m benchmarks.index [--rows 100000000] [--folder DIR] [--workers 4] [--rounds 3]

Generates the columns of a folder of `--rows` clips in tars of 5000 (82 bytes a row; 8.2 GB for 1e8) and a manifest
that has a hole where lines are not looked at (352 bytes a row would be 35 GB). A fresh process then opens the folder,
makes the loader of a training run with pictures and sound, and takes the requests of its first batches, with the file's
pages in the page cache and not. Worker processes get the data set as the loader's workers do and read records at random
rows. Banks: one rank's part of a memory bank, in a process of its own. Private memory is counted apart from pages of
the mapped file, which all processes of a machine share and the system may drop.
Writes results/index.json and the tables of docs/scale.md.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import resource
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from avssl.shards import format as layout
from avssl.shards.columns import Columns
from benchmarks.common import markdown_table, write_result

ROWS_A_TAR, LINE_BYTES, MEMBER_BYTES = 5000, 352, 60_000
LOOKED_AT = 2000  # rows whose manifest lines are written
BATCHES, BATCH = 20, 1024
BANK_DIM = 128
DOC = Path(__file__).parents[1] / "docs" / "scale.md"
BEGIN, END = "<!-- index: written by benchmarks/index.py -->", "<!-- /index -->"
SPAWN = multiprocessing.get_context("spawn")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=100_000_000)
    parser.add_argument("--folder", type=Path, help="where the index is made (default: a temporary folder)")
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--bank-rows", type=int, default=1_562_500, help="of a rank of 64")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        started = time.perf_counter()
        in_child(generate, Path(folder), options.rows)
        made_s = time.perf_counter() - started
        starts = []
        for number in range(2 * options.rounds):
            cached = number % 2 == 1
            if not cached:
                drop_pages(Path(folder) / layout.COLUMNS)
            starts.append({"page_cache": "warm" if cached else "cold", **in_child(start_up, Path(folder))})
            print(starts[-1], flush=True)
        workers = run_workers(Path(folder), options.workers)
        print(workers, flush=True)
        size = (Path(folder) / layout.COLUMNS).stat().st_size
    banks = [in_child(hold_bank, options.bank_rows, 64, dtype) for dtype in ("float32", "bfloat16")]
    result = {
        "rows": options.rows,
        "columns_bytes": size,
        "generated_s": round(made_s, 1),
        "starts": starts,
        "workers": workers,
        "banks": banks,
    }
    path = write_result("index", result)
    print(table(result))
    text = DOC.read_text()
    before, after = text.partition(BEGIN)[0], text.partition(END)[2]
    DOC.write_text(f"{before}{BEGIN}\n{table(result)}\n{END}{after}")
    print(f"written to {path} and {DOC}")


def generate(folder: Path, rows: int) -> None:
    """A shard folder without tars."""
    columns = Columns.empty(0)
    number = np.arange(rows, dtype=np.int64)
    columns.ids = number.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    columns.lines = np.arange(rows + 1, dtype=np.int64) * LINE_BYTES
    columns.shard = (number // ROWS_A_TAR).astype(np.int32)
    columns.duration_s = np.broadcast_to(np.float64(10.0), rows)
    columns.has_video = columns.has_audio = np.broadcast_to(np.bool_(True), rows)
    columns.label = np.broadcast_to(np.int32(-1), rows)
    offsets = number % ROWS_A_TAR * (3 * MEMBER_BYTES)
    for place, name in enumerate(("flac", "json", "mp4")):
        columns.members[name] = np.stack([offsets + place * MEMBER_BYTES, np.full(rows, MEMBER_BYTES)], 1)
    manifest_sha256 = "0" * 64  # of a manifest this long only the size is checked
    entry = columns.write(folder / layout.COLUMNS, manifest_sha256)
    with (folder / layout.MANIFEST).open("wb") as file:
        file.truncate(rows * LINE_BYTES)
        for row in looked_at(rows):
            record = {"row": int(row), "id": f"{columns.ids[row]:016x}", "shard": int(columns.shard[row])}
            line = json.dumps(record | {"source": f"videos/{row}.mp4"}).encode()
            os.pwrite(file.fileno(), line.ljust(LINE_BYTES - 1) + b"\n", int(row) * LINE_BYTES)
    tar = {"bytes": 3 * MEMBER_BYTES * ROWS_A_TAR, "sha256": "0" * 64, "rows": ROWS_A_TAR}
    tars = [{"name": layout.shard_name("shard", number)} | tar for number in range(-(-rows // ROWS_A_TAR))]
    layout.write_index(
        folder, rows=rows, manifest_sha256=manifest_sha256, options={}, sources=rows, sources_sha256="0" * 64, job=None,
        shards=tars, labels=[], rejected=0, columns=entry,
    )  # fmt: skip


def looked_at(rows: int) -> np.ndarray:
    return np.unique(np.random.default_rng(0).integers(rows, size=LOOKED_AT))


def start_up(folder: Path) -> dict[str, Any]:
    """Seconds and bytes from nothing to the requests of the first batches."""
    import torch  # noqa: F401 - its import is not what is measured

    from avssl.data.config import DataConfig
    from avssl.data.loader import IndexedBatches, Loader
    from avssl.shards import ShardSet

    before = memory()
    started = time.perf_counter()
    opened_s = _timed(lambda: ShardSet.open(folder))
    loader = Loader(DataConfig(shards=[str(folder)], batch_size=BATCH))
    loader_s = time.perf_counter() - started - opened_s
    batches = iter(IndexedBatches(loader.groups, loader.config, rank=0, world_size=1, position=0, end=None))
    first_s = _timed(lambda: next(batches))
    further_s = _timed(lambda: [next(batches) for _ in range(BATCHES)]) / BATCHES
    for row in looked_at(len(loader.shards))[:100]:
        assert loader.shards.record(int(row))["row"] == row
    after = memory()
    return {
        "open_s": round(opened_s, 3),
        "loader_s": round(loader_s, 3),
        "first_batch_s": round(first_s, 3),
        "ms_a_request": round(1000 * further_s / BATCH, 4),
        "private_mb": round((after["private"] - before["private"]) / 1e6, 1),
        "peak_resident_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6, 1),
        "torch_private_mb": round(before["private"] / 1e6, 1),
    }


def run_workers(folder: Path, count: int) -> list[dict[str, float]]:
    """Private memory of worker processes, before they got the data set, with it, and after reading many records."""
    from avssl.data.config import DataConfig
    from avssl.data.dataset import ClipDataset
    from avssl.data.worker import process_options
    from avssl.shards import ShardSet

    dataset = ClipDataset(ShardSet.open(folder), DataConfig(shards=[str(folder)]))
    context = process_options(1)["multiprocessing_context"]
    answers = context.Queue()
    processes = [context.Process(target=work, args=(dataset, number, answers)) for number in range(count)]
    for process in processes:
        process.start()
    found = [answers.get(timeout=600) for _ in processes]
    for process in processes:
        process.join()
    return sorted(found, key=lambda item: item["worker"])


def work(dataset: Any, number: int, answers: Any) -> None:
    start = memory()
    rows = looked_at(len(dataset.shards))
    for row in np.random.default_rng(number).permutation(rows):
        dataset.shards.record(int(row))
        dataset.shards.members(int(row))
    end = memory()
    megabytes = {"private_mb": start["private"], "after_reads_mb": end["private"], "shared_mb": end["shared"]}
    answers.put({"worker": number, **{name: round(value / 1e6, 1) for name, value in megabytes.items()}})


def hold_bank(rows: int, ranks: int, dtype: str) -> dict[str, Any]:
    """One rank's part of a bank, in bytes and in seconds to make."""
    import torch

    from avssl.objectives.bank import ShardedMemoryBank

    before = memory()["private"]
    started = time.perf_counter()
    bank = ShardedMemoryBank(rows * ranks, BANK_DIM, rank=ranks // 2, size=ranks, dtype=getattr(torch, dtype))
    return {
        "dtype": dtype,
        "ranks": ranks,
        "rows": rows * ranks,
        "dim": BANK_DIM,
        "bytes_a_rank": bank.shard.numel() * bank.shard.element_size(),
        "private_mb": round((memory()["private"] - before) / 1e6, 1),
        "made_s": round(time.perf_counter() - started, 2),
    }


def memory() -> dict[str, int]:
    """Bytes of this process that are its own, and that it shares with others or with the page cache."""
    fields = {}
    for line in Path("/proc/self/smaps_rollup").read_text().splitlines()[1:]:
        name, value = line.split()[:2]
        fields[name.rstrip(":")] = int(value) * 1024
    # Pages of a file that only this process has mapped are clean: the system counts them as private, but can drop them.
    private = fields["Anonymous"] + fields["Private_Hugetlb"]
    return {"private": private, "shared": fields["Rss"] - private}


def drop_pages(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    os.fsync(descriptor)
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(descriptor)


def in_child(function: Any, *arguments: Any) -> Any:
    """What the function returns in a fresh process."""
    with SPAWN.Pool(1) as pool:
        return pool.apply(function, arguments)


def _timed(work: Any) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def table(result: dict[str, Any]) -> str:
    rows = []
    for kind in ("cold", "warm"):
        those = [start for start in result["starts"] if start["page_cache"] == kind]
        middle = {name: statistics.median(start[name] for start in those) for name in those[0] if name != "page_cache"}
        rows.append([f"start-up, page cache {kind}", *middle.values()])
    names = [name for name in result["starts"][0] if name != "page_cache"]
    text = f"{result['rows']:,} rows, columns of {result['columns_bytes'] / 1e9:.2f} GB\n\n"
    text += markdown_table(["", *names], rows) + "\n\n"
    text += markdown_table([*result["workers"][0]], [[*worker.values()] for worker in result["workers"]]) + "\n\n"
    return text + markdown_table([*result["banks"][0]], [[*bank.values()] for bank in result["banks"]])


if __name__ == "__main__":
    main()
