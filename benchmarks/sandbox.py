"""What the sandbox costs: python -m benchmarks.sandbox [--videos FILE...]. Packing and embedding, with it and without.

Each measurement is a process of its own; the two ways take turns, and the ratio is that of the medians. Wall time is
from the call to its end, the start of confined processes included; CPU time is that of all processes.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.common import markdown_table, write_result
from benchmarks.embed import render, save_random_model

JOBS = ("pack", "embed")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--videos", nargs="+", type=Path, help="files to read instead of a rendered one")
    parser.add_argument("--minutes", type=int, default=2, help="length of the rendered file")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--workers", type=int, default=2, help="of packing")
    parser.add_argument("--measure", nargs="+", help=argparse.SUPPRESS)  # JOB WAY WORKERS MODEL FILE...
    arguments = parser.parse_args()
    if arguments.measure:
        print(json.dumps(measure(*arguments.measure)))
        return
    results = []
    with tempfile.TemporaryDirectory() as folder:
        model = str(save_random_model(Path(folder) / "model"))
        files = arguments.videos or [render(Path(folder) / "rendered.mp4", arguments.minutes)]
        for job in JOBS:
            rounds: dict[str, list[dict[str, float]]] = {"plain": [], "sandbox": []}
            for _ in range(arguments.rounds):
                for way, measured in rounds.items():
                    command = [sys.executable, "-m", "benchmarks.sandbox", "--measure", job, way]
                    command += [str(arguments.workers), model, *map(str, files)]
                    environment = os.environ | {"OMP_WAIT_POLICY": "PASSIVE"}  # as avssl-embed sets it
                    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, env=environment)
                    measured.append(json.loads(done.stdout))
            results.append({"job": job, "rounds": rounds, **ratios(rounds)})
    header = ["job", "wall s plain", "wall s sandbox", "ratio", "CPU s plain", "CPU s sandbox", "CPU ratio"]
    keys = ("job", "plain_s", "sandbox_s", "ratio", "plain_cpu_s", "sandbox_cpu_s", "cpu_ratio")
    print(markdown_table(header, [[result[key] for key in keys] for result in results]))
    settings = {"files": [file.name for file in files], "workers": arguments.workers, "rounds": arguments.rounds}
    print(write_result("sandbox", {"settings": settings, "results": results}))


def ratios(rounds: dict[str, list[dict[str, float]]]) -> dict[str, Any]:
    """Medians of both ways, and the sandbox's over the plain one's."""
    wall = {way: median(one["wall_s"] for one in found) for way, found in rounds.items()}
    cpu = {way: median(one["cpu_s"] for one in found) for way, found in rounds.items()}
    return {
        **{f"{way}_s": seconds for way, seconds in wall.items()},
        **{f"{way}_cpu_s": seconds for way, seconds in cpu.items()},
        "ratio": wall["sandbox"] / wall["plain"],
        "cpu_ratio": cpu["sandbox"] / cpu["plain"],
    }


def measure(job: str, way: str, workers: str, model: str, *files: str) -> dict[str, float]:
    """Do the job in this process."""
    import resource
    import time

    work = {"pack": _pack, "embed": _embed}[job](model, files, way == "sandbox", int(workers))
    wall_s = time.perf_counter()
    work()
    wall_s = time.perf_counter() - wall_s
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return {"wall_s": wall_s, "cpu_s": sum(one.ru_utime + one.ru_stime for one in used)}


def _pack(model: str, files: tuple[str, ...], confined: bool, workers: int) -> Any:
    from avssl.sandbox.bounds import Bounds
    from avssl.shards.build import build
    from avssl.shards.sources import Entry, Listing

    listing = Listing([Entry(Path(file).name, file) for file in files], 0)

    def work() -> None:
        with tempfile.TemporaryDirectory() as folder:
            build(listing, Path(folder) / "out", workers=workers, sandbox=Bounds() if confined else None)

    return work


def _embed(model: str, files: tuple[str, ...], confined: bool, workers: int) -> Any:
    import avssl
    from avssl.embedding.run import embed_to_file, options_for
    from avssl.embedding.sources import find_units
    from avssl.sandbox.decoder import Decoder

    network, units = avssl.load(model), find_units(files)
    options = options_for(network)

    def work() -> None:
        with tempfile.TemporaryDirectory() as folder:
            decoder = Decoder() if confined else None
            embed_to_file(network, units, Path(folder) / "out.npz", options, decoder=decoder)
            if decoder is not None:
                decoder.close()

    return work


if __name__ == "__main__":
    main()
