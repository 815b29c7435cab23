"""Damage media files and decode them in the sandbox: python -m fuzz.mutated --files 10000 [--media DIR].

Nothing may happen to the parent: no crash, no hang, no memory that grows. What became of the files is counted by
reason, and written as JSON with --result. Files are rendered in every container that can be written here; with --media
those of a folder come to them.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from avssl.errors import MediaError
from avssl.media.limits import Limits
from avssl.sandbox.bounds import Bounds
from avssl.sandbox.decoder import Decoder
from fuzz.mutations import mutated

LONGEST_S = 20.0  # for one operation on one file
LARGEST_BYTES = 8 << 20


def rendered() -> dict[str, bytes]:
    """A short clip by every recipe."""
    from avssl.synthetic import fixtures

    return {name: fixtures.clip(name, duration_s=1.0) for name in fixtures.RECIPES}


def real(folder: Path) -> dict[str, bytes]:
    """The clips of a folder that are not too large to damage thousands of times."""
    from avssl.shards.sources import MEDIA_EXTENSIONS

    files = [path for path in sorted(folder.rglob("*")) if path.suffix[1:].lower() in MEDIA_EXTENSIONS]
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in files
        if path.is_file() and path.stat().st_size <= LARGEST_BYTES
    }


def decode(decoder: Decoder, path: Path) -> str:
    """Read all of a file as embedding would; `ok` or the reason why not."""
    try:
        with decoder.open(path) as media:
            info = media.info
            if info.video is not None:
                for _ in media.iter_frames(info.video.start_s, 8.0, end_s=30.0, short_side_px=64):
                    pass
            if info.audio is not None:
                for _ in media.iter_audio(info.audio.start_s, end_s=30.0, rate_hz=16000):
                    pass
    except MediaError as error:
        return error.reason
    return "ok"


def attack(
    sources: dict[str, bytes], files: int, *, seed: int = 0, bounds: Bounds | None = None, timeout_s: float = LONGEST_S
) -> dict[str, Any]:
    """Decode `files` mutations of `sources`; what became of them, and what it cost this process."""
    outcomes: Counter[str] = Counter()
    draw = random.Random(seed)
    names = sorted(sources)
    before_mb, longest_s, slowest = _resident_mb(), 0.0, ""
    unexpected: list[str] = []
    with tempfile.TemporaryDirectory() as folder, Decoder(bounds, Limits(timeout_s=timeout_s)) as decoder:
        path = Path(folder) / "file"
        for number in range(files):
            name = names[number % len(names)]
            path.write_bytes(mutated(sources[name], draw))
            started = time.monotonic()
            reason = decode(decoder, path)
            took_s = time.monotonic() - started
            outcomes[reason] += 1
            if took_s > longest_s:
                longest_s, slowest = took_s, f"{name}, file {number}"
            if reason in ("unexpected", "worker-died", "timeout"):
                unexpected.append(f"{reason}: {name}, file {number}")
        restarts = decoder.restarts
    return {
        "files": files, "seed": seed, "sources": len(sources), "outcomes": dict(sorted(outcomes.items())),
        "restarts_of_the_child": restarts, "longest_s": round(longest_s, 3), "slowest": slowest,
        "parent_grew_by_mb": round(_resident_mb() - before_mb, 1), "to_look_at": unexpected[:50],
    }  # fmt: skip


def _resident_mb() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m fuzz.mutated", description=__doc__.splitlines()[0])
    parser.add_argument("--files", type=int, default=10_000)
    parser.add_argument("--media", type=Path, help="folder of real clips, to be damaged too")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--result", type=Path, help="JSON file for what was counted")
    arguments = parser.parse_args()
    sources = rendered() | (real(arguments.media) if arguments.media else {})
    started = time.monotonic()
    found = attack(sources, arguments.files, seed=arguments.seed)
    if arguments.result:
        from avssl.environment import environment
        from avssl.files import write_json

        facts = {"seconds": round(time.monotonic() - started, 1), "environment": environment("cpu")}
        write_json(arguments.result, found | facts)
    print(json.dumps(found, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
