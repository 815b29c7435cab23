"""`avssl-eval`: a model under a protocol, as results files."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import NoReturn

from avssl import config as configuration
from avssl.cli import configured
from avssl.cli.common import Parser, let_idle_threads_sleep, progress, run

_DESCRIPTION = """\
Evaluate a model: avssl-eval --config eval/PROTOCOL.yaml --model FOLDER [--out DIR] [--KEY VALUE ...]

Writes results.json (metrics, chance, counts, config, environment), tables as CSV and, where the protocol has one, a
page into the folder `out`. Items that cannot be used are named and counted; with more of them than --allow_missing
there is no score.

exit codes: 0 done, 1 failed, 2 wrong use
"""


def main(argv: list[str] | None = None) -> NoReturn:
    run(_main, argv)


def _main(argv: list[str]) -> int:
    from avssl.evaluation.protocol import EvalConfig

    parser = Parser(prog="avssl-eval", description=_DESCRIPTION)
    parser.add_argument("--config", metavar="FILE", help="YAML file of the evaluation; those that come with it: eval/")
    parser.add_argument("--print-config", action="store_true", help="print the resolved config and exit")
    parser.add_argument("--json", action="store_true", help="print results.json instead of a table")
    if "--help" in argv or "-h" in argv:
        parser.epilog = _options(argv)
    arguments, overrides = parser.parse_known_args(argv)
    config = configured.read_config(EvalConfig, arguments.config, overrides, first=["protocol.name"])
    if arguments.print_config:
        print(configuration.dump(config), end="")
        return 0
    return _evaluate(config, as_json=arguments.json)


def _evaluate(config, *, as_json: bool) -> int:
    let_idle_threads_sleep()
    import time

    from avssl.evaluation.registry import protocol_run
    from avssl.evaluation.results import write_results

    out = Path(config.out)
    started_s = time.monotonic()
    with progress(config.name) as advance:
        outcome = protocol_run(config.protocol.name)(config, out, advance)
    path = write_results(out, config, outcome, wall_s=time.monotonic() - started_s)
    if as_json:
        print(path.read_text(), end="")
        return 0
    print(_table(json.loads(path.read_text())))
    for skipped in outcome.skipped:
        print(f"skipped {skipped['item']}: {skipped['cause']}")
    print(f"written to {path}")
    return 0


def _table(results: dict) -> str:
    """Metrics beside chance, one a line."""
    lines = [f"{results['name']} ({results['counts']['items']} items)"]
    width = max(map(len, results["metrics"]), default=0)
    for key, value in results["metrics"].items():
        chance = results["chance"].get(key)
        beside = "" if chance is None else f"   chance {chance:.3f}"
        lines.append(f"  {key.ljust(width)}  {'undefined' if value is None else format(value, '.3f')}{beside}")
    return "\n".join(lines)


def _options(argv: list[str]) -> str:
    """The values of the protocol that `--config` or `--protocol.name` names; without one, which there are."""
    from avssl.evaluation.protocol import EvalConfig
    from avssl.evaluation.registry import PROTOCOLS

    given = dict(itertools.pairwise(argv))
    tree = configuration.read(given["--config"]) if "--config" in given else {}
    name = given.get("--protocol.name") or tree.get("protocol", {}).get("name")
    if name is None:
        return f"protocols: {', '.join(sorted(PROTOCOLS))}; the values of one: avssl-eval --protocol.name NAME --help"
    table = configured.option_table(EvalConfig, {"protocol": {"name": name}})
    return f"Values, as YAML sections or options (default):\n\n{table}"
