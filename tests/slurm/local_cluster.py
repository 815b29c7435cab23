"""A real Slurm on one machine: munge, one controller, two node daemons, all of them children of this process."""

import os
import pwd
import shutil
import socket
import subprocess
import time
from pathlib import Path

_CONF = """\
ClusterName=avssl
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SwitchType=switch/none
MpiDefault=none
ProctrackType=proctrack/pgid
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SlurmdParameters=config_overrides
ReturnToService=2
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
SchedulerParameters=bf_interval=2,sched_interval=2,batch_sched_delay=0
KillWait=30
MinJobAge=86400
NodeName=n1 NodeAddr=127.0.0.1 Port={ports[1]} CPUs=2 RealMemory=2000
NodeName=n2 NodeAddr=127.0.0.1 Port={ports[2]} CPUs=2 RealMemory=2000
PartitionName=low Nodes=n1,n2 MaxTime=INFINITE Default=YES PriorityTier=1 PreemptMode=REQUEUE GraceTime=120
PartitionName=high Nodes=n1,n2 MaxTime=INFINITE PriorityTier=9 PreemptMode=OFF
"""


class LocalCluster:
    """`with LocalCluster(folder) as cluster:` two nodes n1 and n2, partitions low (can be pre-empted) and high."""

    def __init__(self, folder):
        self.folder = Path(folder).resolve()
        self._daemons = []
        search = os.environ["PATH"] + ":/usr/sbin:/sbin"
        self.environment = os.environ | {"PATH": search, "SLURM_CONF": str(self.folder / "slurm.conf")}

    def __enter__(self):
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True, mode=0o755)
        for name in ("state", "spool-n1", "spool-n2"):
            (self.folder / name).mkdir()
        user = pwd.getpwuid(os.getuid()).pw_name
        values = {"host": socket.gethostname(), "folder": self.folder, "user": user, "ports": _free_ports(3)}
        (self.folder / "slurm.conf").write_text(_CONF.format(**values))
        try:
            self._start_munge()
            self._start("slurmctld", "-D")
            self._start("slurmd", "-D", "-N", "n1")
            self._start("slurmd", "-D", "-N", "n2")
            self.wait(self._both_idle, "two idle nodes", 60)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *exc):
        for daemon in reversed(self._daemons):
            daemon.terminate()
        for daemon in self._daemons:
            try:
                daemon.wait(20)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()

    def run(self, *words):
        """The output of a Slurm command."""
        done = subprocess.run(words, capture_output=True, text=True, env=self.environment, cwd=self.folder)
        assert done.returncode == 0, f"{words}: {done.stderr}"
        return done.stdout.strip()

    def submit(self, *words):
        """sbatch with these words; returns the number of the job."""
        return self.run("sbatch", "--parsable", *map(str, words))

    def state(self, job):
        """E.g. PENDING, RUNNING, COMPLETED, FAILED; of an array that of its worst task."""
        text = self.run("scontrol", "show", "job", job)
        found = [word.partition("=")[2] for word in text.split() if word.startswith("JobState=")]
        order = ["FAILED", "TIMEOUT", "CANCELLED", "PREEMPTED", "RUNNING", "COMPLETING", "PENDING", "COMPLETED"]
        return min(found, key=lambda state: order.index(state) if state in order else 0)

    def field(self, job, name):
        text = self.run("scontrol", "show", "job", job)
        return next(word.partition("=")[2] for word in text.split() if word.startswith(f"{name}="))

    def wait(self, is_true, what, limit_s):
        """Until `is_true()`; an error that shows the queue after `limit_s` seconds."""
        end = time.monotonic() + limit_s
        while not is_true():
            if time.monotonic() > end:
                logs = "\n".join(f"{p.name}: {p.read_text()[-1500:]}" for p in sorted(self.folder.glob("*.log")))
                raise TimeoutError(f"no {what} in {limit_s} s\n{self.run('squeue', '-l')}\n{logs}")
            time.sleep(0.3)

    def _both_idle(self):
        return {*self.run("sinfo", "-h", "-N", "-o", "%n %t").splitlines()} == {"n1 idle", "n2 idle"}

    def _start_munge(self):
        key = self.folder / "munge.key"
        key.write_bytes(os.urandom(128))
        key.chmod(0o600)
        files = {name: self.folder / f"munge.{name}" for name in ("socket", "pid", "log", "seed")}
        options = [f"--{name}-file={path}" for name, path in files.items() if name != "socket"]
        self._start("munged", "--foreground", "--force", f"--key-file={key}", f"--socket={files['socket']}", *options)
        self.wait(files["socket"].exists, "munge", 20)

    def _start(self, *words):
        with (self.folder / f"daemon-{len(self._daemons)}-{words[0]}.log").open("wb") as log:
            process = subprocess.Popen(
                words, env=self.environment, cwd=self.folder, stdout=log, stderr=subprocess.STDOUT
            )
        self._daemons.append(process)


def _free_ports(count):
    sockets = [socket.socket() for _ in range(count)]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
    finally:
        for one in sockets:
            one.close()
