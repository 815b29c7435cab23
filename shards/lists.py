"""What the list makers of this folder share: a JSONL that `avssl-shards build` takes, and the command to go on with."""

import argparse
import json
import sys
from collections.abc import Iterable
from pathlib import Path


def parser(description: str, *, root: str) -> argparse.ArgumentParser:
    """`root` says what the ROOT argument is."""
    result = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    result.add_argument("root", metavar="ROOT", type=Path, help=root)
    result.add_argument("-o", "--out", metavar="JSONL", type=Path, required=True, help="the list to write")
    return result


def write_list(out: Path, root: Path, rows: Iterable[dict]) -> None:
    """Write the rows whose `path` (relative to `root`) exists; say how many do not. Exit with 1 if none does."""
    written = missing = 0
    first_missing = ""
    out.parent.mkdir(parents=True, exist_ok=True)
    with out.open("w", encoding="utf-8") as file:
        for row in rows:
            if (root / row["path"]).is_file():
                file.write(json.dumps(row, ensure_ascii=False) + "\n")
                written += 1
            else:
                missing += 1
                first_missing = first_missing or row["path"]
    print(f"{out}: {written} files", file=sys.stderr)
    if missing:
        print(f"  {missing} in the official list are not below {root} (first: {first_missing})", file=sys.stderr)
    if not written:
        sys.exit(f"nothing found below {root}: does it have the layout that --help describes?")
    print(f"next: avssl-shards build {out} SHARDS --root {root}", file=sys.stderr)
