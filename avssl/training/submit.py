"""`avssl-train --submit`: the same command as a job of a cluster, through submitit; requeued when it is stopped."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from avssl.config import build
from avssl.errors import ConfigError, UsageError

_STOPPED = 75  # exit code of avssl-train after a signal
_POLL_S = 0.2


@dataclass
class SubmitConfig:
    """What the job is given. Any other `key=value` goes to sbatch as `--key=value`."""

    where: str = "slurm"
    """slurm, or local: a process of this machine in the background."""
    nodes: int = 1
    processes: int = 1
    """Training processes a node; with GPUs as many as `gpus`."""
    gpus: int = 0
    """GPUs a node."""
    cpus: int = 1
    """CPU cores a process."""
    hours: float = 24.0
    """Until it is stopped and put back into the queue."""
    grace_s: int = 300
    """How long before that it is asked to write a checkpoint."""

    def __post_init__(self) -> None:
        if self.where not in ("slurm", "local"):
            raise ConfigError(f"--submit where={self.where}: choose slurm or local")
        if self.where == "local" and self.nodes * self.processes > 1:
            raise ConfigError("--submit where=local starts one process; let run.devices start more on this machine")


class Training:
    """`avssl-train ARGUMENTS` in a process of its own, one for each task of the job."""

    def __init__(self, arguments: list[str]):
        self.arguments = arguments
        self._process: subprocess.Popen[bytes] | None = None

    def __call__(self) -> str:
        self._process = subprocess.Popen([sys.executable, "-m", "avssl.cli.train", *self.arguments])
        code = self._ended(self._process)
        if code == _STOPPED:  # by a signal that came to it directly: have submitit put the job back
            from submitit.core.job_environment import JobEnvironment

            signal.raise_signal(JobEnvironment._usr_sig())
            time.sleep(3600)  # a rank that is not the first: until the job is ended
        if code != 0:
            raise RuntimeError(f"avssl-train ended with {code}; its words are in this job's log")
        return "finished"

    def checkpoint(self) -> Any:
        """submitit calls this when the job is pre-empted or its time is nearly over."""
        from submitit.helpers import DelayedSubmission

        if self._process is not None:
            if self._process.poll() is None:
                self._process.send_signal(signal.SIGUSR1)
            self._ended(self._process)
        return DelayedSubmission(Training(self.arguments))

    @staticmethod
    def _ended(process: subprocess.Popen[bytes]) -> int:
        """Its exit code. Polled: `checkpoint` interrupts `__call__` here and waits for the same process."""
        while (code := process.poll()) is None:
            time.sleep(_POLL_S)
        return code


def submit(arguments: list[str], run_dir: str, wanted: str) -> tuple[str, Path]:
    """Submit `avssl-train ARGUMENTS`; `wanted` is `key=value,…`. Returns the job's id and the folder of its logs.

    Raises UsageError without submitit, ConfigError for a wrong value.
    """
    try:
        import submitit
    except ImportError:
        raise UsageError("--submit needs submitit, which is not installed: pip install 'avssl[cluster]'") from None
    values = _pairs(wanted)
    own = {key: values.pop(key) for key in list(values) if key in SubmitConfig.__dataclass_fields__}
    config = build(SubmitConfig, own, "--submit")
    logs = Path(run_dir).with_name(f"{Path(run_dir).name}.jobs")
    try:
        executor = submitit.AutoExecutor(folder=logs, cluster=config.where, slurm_max_num_timeout=10_000)
    except RuntimeError as error:
        raise UsageError(f"--submit: {error}; where=local runs it on this machine") from None
    executor.update_parameters(
        name=f"avssl-{Path(run_dir).name}",
        nodes=config.nodes,
        tasks_per_node=config.processes,
        gpus_per_node=config.gpus,
        cpus_per_task=config.cpus,
        timeout_min=round(config.hours * 60),
        slurm_signal_delay_s=config.grace_s,
        slurm_additional_parameters=values,
    )
    try:
        job = executor.submit(Training(arguments))
    except submitit.core.utils.FailedJobError as error:
        raise UsageError(f"--submit: sbatch refused the job ({str(error).strip().splitlines()[-1]})") from None
    return job.job_id, logs


def _pairs(text: str) -> dict[str, Any]:
    import yaml

    values = {}
    for pair in filter(None, text.split(",")):
        key, equals, value = pair.partition("=")
        if not equals:
            raise UsageError(f"--submit {text}: {pair!r} is no key=value")
        values[key.strip()] = yaml.safe_load(value)
    return values
