"""`avssl-train`: pretraining from a config."""

from __future__ import annotations

import itertools
import sys
import textwrap
from typing import NoReturn

from avssl import config as configuration
from avssl.cli.common import Parser, let_idle_threads_sleep, progress, run
from avssl.errors import ConfigError

EXIT_STOPPED = 75  # EX_TEMPFAIL of sysexits.h: try again later

_DESCRIPTION = """\
Train from a config: avssl-train --config configs/tiny.yaml [--run.dir DIR] [--KEY VALUE ...]

The same command again continues the run in run.dir after its last good checkpoint, bit for bit on a CPU; a finished
run says so. SIGTERM and SIGUSR1 write a checkpoint at the end of the step and exit with 75.

exit codes: 0 finished, 1 failed, 2 wrong use, 75 stopped by a signal, run the same command to go on
"""


def main(argv: list[str] | None = None) -> NoReturn:
    run(_main, argv)


def _main(argv: list[str]) -> int:
    parser = Parser(prog="avssl-train", description=_DESCRIPTION)
    parser.add_argument("--config", metavar="FILE", help="YAML file with the values that differ from the defaults")
    parser.add_argument("--print-config", action="store_true", help="print the resolved config and exit")
    parser.epilog = (
        "Values, as YAML sections or options (default):\n\n" + _option_table(argv) if _wants_help(argv) else None
    )
    arguments, overrides = parser.parse_known_args(argv)
    config = read_config(arguments.config, overrides)
    if arguments.print_config:
        print(configuration.dump(config), end="")
        return 0
    return _train(config)


def read_config(path: str | None, overrides: list[str]):
    """The TrainConfig of a YAML file and `--key value` (or `--key=value`) pairs."""
    from avssl.training.config import TrainConfig

    tree = configuration.read(path) if path else {}
    pairs = _pairs(overrides)
    for key, text in sorted(pairs, key=lambda pair: pair[0] != "task.name"):  # the name decides which keys are valid
        configuration.override(TrainConfig, tree, key, text)
    if not path and not pairs:
        raise ConfigError("no --config given; the recipes are in configs/")
    return configuration.build(TrainConfig, tree)


def _pairs(words: list[str]) -> list[tuple[str, str]]:
    """`--a.b 1 --c=2` as pairs."""
    pairs = []
    rest = iter(words)
    for word in rest:
        if not word.startswith("--"):
            raise ConfigError(f"{word!r}: expected --key value")
        key, equals, text = word[2:].partition("=")
        if not equals:
            value = next(rest, None)
            if value is None:
                raise ConfigError(f"--{key}: has no value")
            text = value
        pairs.append((key, text))
    return pairs


def _train(config) -> int:
    let_idle_threads_sleep()
    from avssl.training.loop import Trainer

    trainer = Trainer(config)
    if sys.stderr.isatty() and trainer.main:
        with progress("training", total=trainer.total_steps) as advance:
            advance(trainer.step)
            outcome = trainer.run(advance)
    else:
        outcome = trainer.run()
    trainer.close()
    return EXIT_STOPPED if outcome == "stopped" else 0


def _wants_help(argv: list[str]) -> bool:
    return "--help" in argv or "-h" in argv


def _option_table(argv: list[str]) -> str:
    """Every value with type, default and meaning, by section."""
    from avssl.training.config import TrainConfig

    lines = []
    task = next((text for key, text in itertools.pairwise(argv) if key == "--task.name"), "xid")
    for option in configuration.options(TrainConfig, {"task": {"name": task}}):
        lines.append(f"  --{option.key} {option.kind} ({option.default})")
        lines += textwrap.wrap(option.meaning, 100, initial_indent=" " * 8, subsequent_indent=" " * 8)
    return "\n".join(lines)


if __name__ == "__main__":  # `python -m torch.distributed.run ... -m avssl.cli.train`
    main()
