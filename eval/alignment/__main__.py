"""Does AVSA learn where sounds come from? Runs a study on rendered 360° scenes and keeps its numbers.

    python -m eval.alignment eval/alignment/full.yaml

renders the scenes, trains every run that the study names, on two processes, and writes `eval/results/NAME.json`. A
study that is interrupted goes on where it stopped. `python -m eval.alignment.page` makes the tables and figures of
docs/avsa-evidence.md from it.
"""

from __future__ import annotations

import os
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

from avssl import config
from avssl.cli.common import Parser, run
from avssl.errors import UsageError

RESULTS = Path("eval/results")
CHIEF = ("avsa_bin_4", "avsa_bin_4_transformer", "avc_bin_4", "yaw_4", "own_view", "turn_lowers")


def main(argv: list[str]) -> int:
    parser = Parser(prog="python -m eval.alignment", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("study", metavar="STUDY.yaml")
    parser.add_argument("--work", metavar="DIR", help="where scenes and finished runs are kept (default: %(default)s)")
    parser.add_argument("--result", metavar="FILE", help=f"default: {RESULTS}/NAME.json")
    parser.add_argument("--processes", type=int, default=2, help="default: %(default)s")
    parser.add_argument("--only", metavar="TEXT", help="only runs with this in their name; writes no result file")
    parser.set_defaults(work="build/alignment")
    parser.add_argument("--finished", action="store_true", help="make no runs, take those that are finished")
    args = parser.parse_args(argv)
    from avssl.environment import environment
    from eval.alignment.chart import VARIABLE
    from eval.alignment.runner import run_group
    from eval.alignment.study import Study
    from eval.alignment.worlds import render
    from eval.robustness.runner import finished, one_thread, run_all
    from eval.robustness.summary import Results, write_results

    study, work = Study.read(args.study), Path(args.work)
    runs = study.runs()
    skipped = sorted({r.world.name for r in runs if r.world.kind != "rendered"}) if not os.environ.get(VARIABLE) else []
    if skipped:
        print(f"skipped: {', '.join(skipped)}: {VARIABLE} is not set, real media are not there", file=sys.stderr)
        runs = [r for r in runs if r.world.name not in skipped]
    if args.only:
        runs = [r for r in runs if args.only in r.name]
    if not runs:
        raise UsageError(f"no runs are left to make (--only {args.only}; skipped: {skipped or 'none'})")
    started_s = time.monotonic()
    with ProcessPoolExecutor(args.processes, get_context("spawn"), initializer=one_thread) as pool:
        for world in {r.world.digest: r.world for r in runs}.values():
            render(world, work / "worlds", pool)
    if args.finished:
        results = [kept for one in runs if (kept := finished(one, work / study.name)) is not None]
    else:
        results = run_all(
            runs, work / study.name, args.processes, run_group, lambda one: (study.block_of(one), one.start)
        )
    tree = {
        "environment": environment("cpu"),
        "wall_s": round(time.monotonic() - started_s, 1),
        "processes": args.processes,
        "skipped": skipped,
        "missing": len(runs) - len(results),
        "study": config.plain(study),
        "runs": results,
    }
    found = Results(tree)
    for line in found.lines(CHIEF):
        print(line)
    if args.only:
        return 0
    path = Path(args.result or RESULTS / f"{study.name}.json")
    write_results(path, tree)
    print(f"written to {path}")
    missed = found.missed(tree["study"]["expect"])
    for sentence in missed:
        print(f"missed: {sentence}", file=sys.stderr)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.argv[0] = "eval.alignment"  # the name before error messages
    run(main)
