"""A Slurm of one node, as Debian's package slurm-wlm has it, in a folder of its own.

Both daemons run as the user who runs the tests and listen on the loopback device only. There is no
accounting and no authentication: a cluster for tests, on a machine that nobody else uses.
"""

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

CONFIG = """
ClusterName=tests
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={control_port}
SlurmdPort={node_port}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/none
CredType=cred/none
# a requeued job waits until its credential has expired, 2 minutes by default; 5 s is the least
AuthInfo=cred_expire=5
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerParameters=sched_interval=1,bf_interval=1,batch_sched_delay=0
KillWait=5
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
NodeName={host} NodeAddr=127.0.0.1 CPUs={cpus} RealMemory={memory} State=UNKNOWN
PartitionName=debug Nodes={host} Default=YES PriorityTier=1 PreemptMode=REQUEUE GraceTime=30
PartitionName=urgent Nodes={host} PriorityTier=9 PreemptMode=OFF
"""


def missing() -> str:
    """What this machine lacks for a cluster; empty when nothing."""
    programs = [p for p in ("slurmctld", "slurmd", "sbatch", "squeue") if not shutil.which(p)]
    if programs:
        return f"no {' and '.join(programs)} here: apt-get install slurm-wlm"
    if not find_spec("hydra_plugins.hydra_submitit_launcher"):
        return "no hydra-submitit-launcher here: uv sync --extra train --extra slurm"
    return ""


class Cluster:
    """Its daemons, and what tests ask of it. A context manager."""

    def __init__(self, folder: Path, cpus: int = 2) -> None:
        self.folder, self.cpus, self.daemons = folder, cpus, list[subprocess.Popen]()
        self.env = {**os.environ, "SLURM_CONF": str(folder / "slurm.conf")}

    def __enter__(self) -> "Cluster":
        try:
            return self._begin()
        except BaseException:  # an interrupt, or no node in time: no daemon stays behind
            self.__exit__()
            raise

    def _begin(self) -> "Cluster":
        for name in ("state", "spool"):
            (self.folder / name).mkdir(parents=True)
        host = socket.gethostname().partition(".")[0]
        control_port, node_port = free_ports(2)
        text = CONFIG.format(
            host=host, folder=self.folder, cpus=self.cpus, memory=2000, user=self("id", "-un"),
            control_port=control_port, node_port=node_port,
        )  # fmt: skip
        Path(self.env["SLURM_CONF"]).write_text(text)
        self.start("slurmctld", "-D")
        self.start("slurmd", "-D", "-N", host)
        wait_for(lambda: "idle" in self("sinfo", "--noheader", "--format=%T", check=False), 60)
        return self

    def __exit__(self, *_: object) -> None:
        self("scancel", "--partition=debug", check=False)
        self("scancel", "--partition=urgent", check=False)
        wait_for(lambda: not self("squeue", "--noheader", check=False), 60)
        for daemon in reversed(self.daemons):
            daemon.terminate()
            daemon.wait(timeout=30)

    def start(self, *words: str) -> None:
        """One of its daemons."""
        with (self.folder / f"{words[0]}.log").open("w") as log:
            self.daemons.append(
                subprocess.Popen(words, env=self.env, stdout=log, stderr=log, cwd=self.folder)
            )

    def __call__(self, *words: str, check: bool = True) -> str:
        """What a command of Slurm prints."""
        done = subprocess.run(words, env=self.env, capture_output=True, text=True, timeout=60)
        assert not check or done.returncode == 0, (words, done.stderr)
        return done.stdout.strip()

    def jobs(self, *states: str) -> list[str]:
        """Jobs in these states; without any, all that it remembers."""
        text = self("squeue", "--noheader", "--array", f"--states={','.join(states) or 'all'}",
                    "--format=%F_%K")  # fmt: skip
        return text.split()


def free_ports(number: int) -> list[int]:
    """Ports of the loopback device that nobody listens on."""
    sockets = [socket.socket() for _ in range(number)]
    for s in sockets:
        s.bind(("127.0.0.1", 0))
    ports = [s.getsockname()[1] for s in sockets]
    for s in sockets:
        s.close()
    return ports


def wait_for(condition: Callable[[], object], seconds: float) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"nothing came of it within {seconds} s"
        time.sleep(0.2)
