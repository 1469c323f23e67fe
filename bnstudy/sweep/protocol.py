"""What travels between the planner and its workers: packs of stacks one way, status files back.

Launchers give the parent no channel to a worker, so both are small files in one folder: that works
for processes, for Slurm and over a shared file system alike. Whoever looks on from outside reads
the same files, and launch.json, which says what the launch is.
"""

import os
import socket
import time
from enum import StrEnum
from pathlib import Path

from pydantic import BaseModel

from bnstudy.atomic import write_atomically
from bnstudy.config import Config, TrackerConfig


class State(StrEnum):
    """The state of a stack; it has one at a time."""

    PLANNED = "planned"  # no worker has begun it
    RUNNING = "running"
    DONE = "done"  # all its runs are in the store
    FAILED = "failed"  # it raised; launching it again would raise again
    DIED = "died"  # its worker ended without a word
    REMOVED = "removed"  # its worker stored it, and the store does not hold it any more
    STOPPED = "stopped"  # by Ctrl-C, a signal, max_minutes or fail_fast


class StackPlan(BaseModel):
    """Networks that train as one stack, and how long that may take."""

    configs: list[Config]
    seconds: float

    @property
    def label(self) -> str:
        """Its first cell in a few words, for people who wait."""
        return self.configs[0].label

    @property
    def addresses(self) -> list[str]:
        """Of its runs, in the order in which they train."""
        return [config.address for config in self.configs]

    @property
    def name(self) -> str:
        """Under which its worker reports on it: the address of its first run, which is in no
        other stack."""
        return self.configs[0].address


class Execution(BaseModel):
    """How a launch computes: the same for all its workers, and no part of any address."""

    results_dir: str
    device: str = "auto"
    compile: str = "auto"
    save_weights: bool = False
    checkpoint_minutes: float | None = None  # between checkpoints of a stack; None: none
    fail_fast: bool = False  # the first stack that fails stops the launch
    tracker: TrackerConfig = TrackerConfig()
    study: str = ""
    scale: str = ""
    command: str = ""
    launcher: str = ""  # how the workers begin: in_process, forked, spawned, or Hydra's name
    deadline: float | None = None  # seconds since the epoch; no stack begins after it


class Pack(BaseModel):
    """The work of one worker."""

    index: int
    folder: str  # of the launch: the pack, its status and the stop file are here
    execution: Execution
    stacks: list[StackPlan]

    @property
    def path(self) -> Path:
        """Where this pack is read from."""
        return self.path_of(self.folder, self.index)

    @staticmethod
    def path_of(folder: str | Path, index: int) -> Path:
        """Where the pack of this index is, in the folder of its launch."""
        return Path(folder) / f"pack-{index}.json"

    def write(self) -> None:
        """Put it where its worker finds it."""
        write_atomically(self.path, self.model_dump_json())

    @classmethod
    def read(cls, path: str | Path) -> "Pack":
        return cls.model_validate_json(Path(path).read_text())


class StackStatus(BaseModel):
    """What a worker says of one of its stacks."""

    state: State = State.PLANNED
    error: str = ""


class Status(BaseModel):
    """What a worker says of itself, rewritten twice a second."""

    pid: int = 0
    host: str = ""
    heartbeat: float = 0.0  # when it was last written
    started: float = 0.0  # when the first step was made: imports are not progress
    total_seconds: float = 0.0  # estimated seconds of the whole pack
    done_seconds: float = 0.0  # estimated seconds of work behind it
    current: str = ""
    metric: str = ""
    tracker: str = ""
    notes: list[str] = []  # what went otherwise than planned, each once
    stacks: dict[str, StackStatus] = {}  # by StackPlan.name
    error: str = ""  # what ended the worker before or between its stacks

    @property
    def ended(self) -> set[str]:
        """The stacks that the worker is through with, by name."""
        over = (State.DONE, State.FAILED)
        return {name for name, own in self.stacks.items() if own.state in over}

    @property
    def idle(self) -> bool:
        """Whether the worker is through with all that it began."""
        return bool(self.stacks) and self.ended == set(self.stacks)

    @property
    def done(self) -> int:
        """Stacks that are in the store."""
        return sum(s.state is State.DONE for s in self.stacks.values())

    @staticmethod
    def read(folder: Path) -> dict[int, "Status"]:
        """The status of each worker of a launch by the pack's index.

        A file that is being replaced is read at the next look.
        """
        found = {}
        for path in folder.glob("status-*.json"):
            try:
                index = int(path.stem.removeprefix("status-"))
                found[index] = Status.model_validate_json(path.read_text())
            except (OSError, ValueError):
                continue
        return dict(sorted(found.items()))

    def write(self, folder: str | Path, index: int) -> None:
        """Replace this worker's status file."""
        self.pid, self.host, self.heartbeat = os.getpid(), socket.gethostname(), time.time()
        # twice a second: not worth the wait for the disk
        path = Path(folder) / f"status-{index}.json"
        write_atomically(path, self.model_dump_json(), durable=False)


class Job(BaseModel):
    """A job of a cluster as the cluster last described it."""

    id: str
    state: str  # PENDING, RUNNING, ...; GONE when the cluster no longer knows it
    reason: str = ""  # why it waits

    @property
    def alive(self) -> bool:
        """Whether it is queued or runs, so that it may still train something."""
        return self.state not in ENDED


ENDED = ("BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "NODE_FAIL", "OUT_OF_MEMORY",
         "PREEMPTED", "REVOKED", "TIMEOUT", "GONE")  # requeued is PENDING  # fmt: skip


class Launch(BaseModel):
    """What a launch is, for those who look at its folder later."""

    sweep: str  # names the launches of one command: the first one's folder
    host: str
    pid: int  # of the planner
    begun: float
    ended: float | None = None  # when a planner had settled all its stacks
    launcher: str = ""
    command: str = ""
    study: str = ""
    scale: str = ""
    seconds: float = 0.0  # estimated, of all packs
    packs: list[dict[str, int]]  # of each pack, by StackPlan.name, how many networks
    jobs: dict[int, Job] = {}  # by the pack's index, where packs are jobs of a cluster

    @staticmethod
    def path(folder: Path) -> Path:
        """Where the launch of a folder is described."""
        return folder / "launch.json"

    @classmethod
    def read(cls, folder: Path) -> "Launch | None":
        """The launch of a folder; None where there is none that can be read."""
        try:
            return cls.model_validate_json(cls.path(folder).read_text())
        except (OSError, ValueError):
            return None

    def write(self, folder: Path) -> None:
        """Put it where others find it."""
        write_atomically(self.path(folder), self.model_dump_json(), durable=False)


def launches_dir(results: str | Path) -> Path:
    """Where the folders of launches lie, below a results folder."""
    return (Path(results) / "runs" / "launches").absolute()


def stop_file(folder: str | Path) -> Path:
    """The file whose existence asks every worker of a launch to stop."""
    return Path(folder) / "stop"
