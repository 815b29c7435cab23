"""How well does Robust-xID stand wrong pairs and false negatives? Runs a study and keeps its numbers.

    python -m eval.robustness eval/robustness/rendered.yaml

trains every run that the study names, on two processes, and writes `eval/results/NAME.json`. A run that is interrupted
goes on where it stopped. `python -m eval.robustness.page` makes the tables and figures of docs/robust-xid.md from it.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

from avssl import config
from avssl.cli.common import Parser, run
from avssl.environment import environment
from avssl.errors import UsageError

RESULTS = Path("eval/results")


def main(argv: list[str]) -> int:
    parser = Parser(prog="python -m eval.robustness", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("study", metavar="STUDY.yaml")
    parser.add_argument("--work", metavar="DIR", help="where finished runs are kept (default: build/robustness/NAME)")
    parser.add_argument("--result", metavar="FILE", help=f"default: {RESULTS}/NAME.json")
    parser.add_argument("--processes", type=int, default=2, help="default: %(default)s")
    parser.add_argument("--only", metavar="TEXT", help="only runs with this in their name; writes no result file")
    args = parser.parse_args(argv)
    from eval.robustness.real import folder
    from eval.robustness.runner import run_all
    from eval.robustness.study import Study
    from eval.robustness.summary import Results, write_results

    study = Study.read(args.study)
    runs = study.runs()
    skipped = sorted({r.world.name for r in runs if r.world.kind == "real"}) if folder() is None else []
    if skipped:
        print(f"skipped: {', '.join(skipped)}: AVSSL_MEDIA is not set, the real clips are not there", file=sys.stderr)
        runs = [r for r in runs if r.world.name not in skipped]
        if not runs:
            return 0
    if args.only:
        runs = [r for r in runs if args.only in r.name]
        if not runs:
            raise UsageError(f"--only {args.only}: no run's name has that")
    started_s = time.monotonic()
    results = run_all(runs, Path(args.work or f"build/robustness/{study.name}"), args.processes)
    tree = {
        "environment": environment(),
        "wall_s": round(time.monotonic() - started_s, 1),
        "processes": args.processes,
        "skipped": skipped,
        "study": config.plain(study),
        "runs": results,
    }
    for line in Results(tree).lines():
        print(line)
    if args.only:
        return 0
    path = Path(args.result or RESULTS / f"{study.name}.json")
    write_results(path, tree)
    print(f"written to {path}")
    missed = Results(tree).missed(tree["study"]["expect"])
    for sentence in missed:
        print(f"missed: {sentence}", file=sys.stderr)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.argv[0] = "eval.robustness"  # the name before error messages
    run(main)
