"""Fuzz one parser, or all: python -m fuzz [TARGET] [--seconds S]."""

from __future__ import annotations

import argparse
import hashlib
import random
import subprocess
import sys
import time
import traceback
from pathlib import Path

from fuzz.mutations import mutated
from fuzz.targets import TARGETS, Target

FOUND = Path("build/fuzz")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m fuzz", description=__doc__)
    parser.add_argument("target", nargs="?", choices=sorted(TARGETS))
    parser.add_argument("--seconds", type=float, default=60.0, help="for each target (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--list", action="store_true", help="name the targets")
    arguments = parser.parse_args()
    if arguments.list:
        print("\n".join(sorted(TARGETS)))
        return 0
    if arguments.target is None:  # each in a process of its own: one that crashes is one finding
        options = ["--seconds", str(arguments.seconds), "--seed", str(arguments.seed)]
        return max(subprocess.call([sys.executable, "-m", "fuzz", name, *options]) for name in sorted(TARGETS))
    target = TARGETS[arguments.target]
    try:
        import atheris
    except ImportError:
        return _at_random(arguments.target, target, arguments.seconds, arguments.seed)
    return _guided(atheris, arguments.target, target, arguments.seconds, arguments.seed)


def _at_random(name: str, target: Target, seconds: float, seed: int) -> int:
    """Mutations drawn from a seed, without looking at what they reach."""
    seeds, draw = target.seeds(), random.Random(seed)
    end, count, found = time.monotonic() + seconds, 0, 0
    while time.monotonic() < end:
        data = mutated(draw.choice(seeds), draw)
        count += 1
        try:
            target.run(data)
        except Exception:
            found += 1
            keep(name, data)
            traceback.print_exc()
    print(f"{name}: {count} inputs at random (atheris is not installed), {found} findings", flush=True)
    return 1 if found else 0


def _guided(atheris, name: str, target: Target, seconds: float, seed: int) -> int:
    corpus = FOUND / "corpus" / name
    corpus.mkdir(parents=True, exist_ok=True)
    with atheris.instrument_imports(include=["avssl"]):  # the parsers are imported when they first run
        for data in target.seeds():
            (corpus / hashlib.sha256(data).hexdigest()[:16]).write_bytes(data)
            target.run(data)
    options = [f"-max_total_time={seconds:.0f}", f"-seed={seed + 1}", "-timeout=20", "-rss_limit_mb=4096"]
    options.append(f"-artifact_prefix={FOUND}/{name}-")
    atheris.Setup([sys.argv[0], *options, str(corpus)], target.run)
    atheris.Fuzz()  # ends the process
    return 0


def keep(name: str, data: bytes) -> Path:
    """Write what made a parser fail, under the name of its content."""
    FOUND.mkdir(parents=True, exist_ok=True)
    path = FOUND / f"{name}-{hashlib.sha256(data).hexdigest()[:16]}"
    path.write_bytes(data)
    return path


if __name__ == "__main__":
    sys.exit(main())
