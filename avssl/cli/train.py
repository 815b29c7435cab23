"""`avssl-train`: pretraining from a config."""

from __future__ import annotations

import argparse
import itertools
import sys
from pathlib import Path
from typing import NoReturn

from avssl import config as configuration
from avssl.cli import configured
from avssl.cli.common import Parser, let_idle_threads_sleep, progress, run

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
    parser.add_argument(
        "--submit",
        metavar="KEY=VALUE,...",
        help="run it as a job of a cluster: where (slurm, local), nodes, processes and gpus a node, cpus a process,"
        " hours; other keys go to sbatch, such as partition=gpu",
    )
    parser.epilog = (
        "Values, as YAML sections or options (default):\n\n" + _option_table(argv) if _wants_help(argv) else None
    )
    arguments, overrides = parser.parse_known_args(argv)
    config = read_config(arguments.config, overrides)
    if arguments.print_config:
        print(configuration.dump(config), end="")
        return 0
    if arguments.submit is not None:
        return _submit(arguments, overrides, config.run.dir)
    return _train(config)


def read_config(path: str | None, overrides: list[str]):
    """The TrainConfig of a YAML file and `--key value` (or `--key=value`) pairs."""
    from avssl.training.config import TrainConfig

    return configured.read_config(TrainConfig, path, overrides, first=["task.name"])


def _train(config) -> int:
    let_idle_threads_sleep()
    from avssl.training import faults
    from avssl.training.loop import Trainer

    with faults.named(config):
        trainer = Trainer(config)
        if sys.stderr.isatty() and trainer.main:
            with progress("training", total=trainer.total_steps) as advance:
                advance(trainer.step)
                outcome = trainer.run(advance)
        else:
            outcome = trainer.run()
        trainer.close()
    return EXIT_STOPPED if outcome == "stopped" else 0


def _submit(arguments: argparse.Namespace, overrides: list[str], run_dir: str) -> int:
    from avssl.training.submit import submit

    named = ["--config", str(Path(arguments.config).resolve())] if arguments.config else []
    job, logs = submit([*named, *overrides], run_dir, arguments.submit)
    print(f"job {job} submitted; it writes to {run_dir}, its log is in {logs}")
    return 0


def _wants_help(argv: list[str]) -> bool:
    return "--help" in argv or "-h" in argv


def _option_table(argv: list[str]) -> str:
    from avssl.training.config import TrainConfig

    task = next((text for key, text in itertools.pairwise(argv) if key == "--task.name"), "xid")
    return configured.option_table(TrainConfig, {"task": {"name": task}})


if __name__ == "__main__":  # `python -m torch.distributed.run ... -m avssl.cli.train`
    main()
