"""What travels between the planner and its workers: packs of stacks one way, status files back.

Launchers give the parent no channel to a worker, so both are small files in one folder: that works
for processes, for Slurm and over a shared file system alike.
"""

import os
import socket
import time
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from bnstudy.atomic import write_atomically
from bnstudy.config import Config, TrackerConfig


class StackPlan(BaseModel):
    """Seeds of one cell that train as one stack, and how long that may take."""

    configs: list[Config]
    seconds: float

    @property
    def label(self) -> str:
        """The cell in a few words, for people who wait."""
        return self.configs[0].label


class Pack(BaseModel):
    """The work of one worker."""

    index: int
    folder: str  # of the launch: the pack, its status and the stop file lie here
    results_dir: str
    stacks: list[StackPlan]
    device: str
    compile: str = "auto"
    save_weights: bool
    tracker: TrackerConfig
    study: str
    command: str
    deadline: float | None = None  # seconds since the epoch

    def path(self) -> Path:
        """Where this pack is read from."""
        return Path(self.folder) / f"pack-{self.index}.json"


class Status(BaseModel):
    """What a worker says of itself, rewritten twice a second."""

    pid: int = 0
    host: str = ""
    heartbeat: float = 0.0
    started: float = 0.0  # when the first step was made: imports are not progress
    done: int = 0  # stacks
    total_seconds: float = 0.0  # estimated seconds of the whole pack
    done_seconds: float = 0.0  # estimated seconds of work behind it
    current: str = ""
    metric: str = ""
    tracker: str = ""
    failures: list[dict[str, Any]] = []

    @staticmethod
    def read(folder: Path) -> list["Status"]:
        """All status files of a launch; one that is being replaced is read at the next look."""
        found = []
        for path in sorted(folder.glob("status-*.json")):
            try:
                found.append(Status.model_validate_json(path.read_text()))
            except (OSError, ValueError):
                continue
        return found

    def write(self, folder: Path, index: int) -> None:
        """Replace this worker's status file."""
        self.pid, self.host, self.heartbeat = os.getpid(), socket.gethostname(), time.time()
        # twice a second: not worth the wait for the disk
        write_atomically(folder / f"status-{index}.json", self.model_dump_json(), durable=False)


def stop_file(folder: str | Path) -> Path:
    """The file whose existence asks every worker of a launch to stop."""
    return Path(folder) / "stop"
