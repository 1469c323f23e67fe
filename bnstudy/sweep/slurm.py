"""Packs as jobs of a Slurm cluster: submitit submits them, squeue says how they are.

The jobs of a launch are one array that has the name of the launch's folder. So a planner that was
started again, or anybody who looks on, asks for that name, and a planner may die at any moment.
"""

import contextlib
import io
import os
import pkgutil
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from bnstudy.errors import UserError, unknown
from bnstudy.sweep.launchers import WORKER, Wait, single_threaded
from bnstudy.sweep.protocol import Job, Launch, Pack, Status, stop_file

NAME = "submitit_slurm"
GENERAL = ("timeout_min", "cpus_per_task", "gpus_per_node", "tasks_per_node", "mem_gb", "nodes",
           "stderr_to_stdout")  # submitit calls the others slurm_*  # fmt: skip
OURS = ("_target_", "submitit_folder", "name", "max_num_timeout")  # what this file decides
SHORTEST, LONGEST = 1.0, 10.0  # seconds between two looks at the queue
QUEUE_TIMEOUT = 60  # seconds for an answer of squeue
REQUEUES = 20  # of a job by itself: one that is never let work must end some day


class Slurm:
    """A launcher, `launchers.Cluster`, that submits to Slurm."""

    __name__ = NAME

    def __init__(self, settings: Mapping[str, Any], at_once: int | None = None) -> None:
        """Settings are those of `hydra.launcher` for submitit_slurm.

        Args:
            at_once: jobs that run at the same time, at most.

        Raises:
            UserError: jobs so short that Slurm would warn them at their start.
        """
        minutes, warning = settings["timeout_min"], settings["signal_delay_s"]
        if 60 * minutes < 2 * warning:
            raise UserError(
                f"a job of {minutes} minutes would be warned {warning} s before its end, when it "
                f"has hardly begun: give launcher.time_minutes={-(-4 * warning // 60)} or more, or "
                "a smaller hydra.launcher.signal_delay_s"
            )
        self.settings = {k: v for k, v in settings.items() if k not in OURS and v is not None}
        extra = {"requeue": True, **self.settings.get("additional_parameters", {})}
        self.settings["additional_parameters"] = extra
        if at_once is not None:
            self.settings["array_parallelism"] = at_once

    def __call__(self, packs: list[Pack]) -> Wait:
        """Submit packs as one array.

        Raises:
            UserError: sbatch refuses them; with its message.
        """
        import submitit

        folder = Path(packs[0].folder)
        executor = submitit.AutoExecutor(folder=folder / "jobs", cluster="slurm")
        executor.update_parameters(
            name=folder.name,
            **{k if k in GENERAL else f"slurm_{k}": v for k, v in self.settings.items()},
        )
        said = io.StringIO()  # submitit repeats there what sbatch says
        try:
            with single_threaded(), contextlib.redirect_stderr(said):
                executor.map_array(Work(), [str(pack.path) for pack in packs])
        except submitit.core.utils.FailedJobError as error:
            raise UserError(f"Slurm refused the jobs: {self._explained(str(error))}") from None
        look([folder])
        return self.following([folder])

    def _explained(self, refusal: str) -> str:
        """sbatch's message on one line; of partitions, which there are."""
        words = " ".join(refusal.replace("sbatch: error: ", "").split())
        wanted = self.settings.get("partition")
        if wanted is None or "partition" not in words.lower():
            return words
        found = subprocess.run(
            ["sinfo", "--noheader", "--format=%R"], capture_output=True, text=True, check=False
        )
        return f"{words}. {unknown('partition', wanted, set(found.stdout.split()))}"

    @contextlib.contextmanager
    def sole(self, launches: Path) -> Iterator[None]:
        """One planner at a time, by a lock that ends with its process."""
        import fcntl

        launches.mkdir(parents=True, exist_ok=True)
        with (launches / "lock").open("w") as file:
            with contextlib.suppress(OSError):  # a file system without locks
                fcntl.lockf(file, fcntl.LOCK_EX)
            yield

    def underway(self, launches: Path) -> list[Path]:
        """See `launchers.Cluster`. Raises UserError when the cluster does not answer."""
        folders = [path.parent for path in sorted(launches.glob("*/launch.json"))]
        known = {f: launch for f in folders if (launch := Launch.read(f)) is not None}
        asked = [f for f, la in known.items() if la.launcher == NAME and la.ended is None]
        try:
            found = look(asked)
        except NoAnswer as error:
            raise UserError(
                f"{error}. Without it nobody knows which jobs are queued: nothing is submitted"
            ) from None
        return [f for f, jobs in found.items() if any(job.alive for job in jobs.values())]

    def following(self, folders: Sequence[Path]) -> Wait:
        """See `launchers.Cluster`. When a launch is to stop, its queued jobs are cancelled;
        those that run stop by themselves."""
        left, stopped = list(folders), set[Path]()

        def wait() -> None:
            pause, due = SHORTEST, 0.0
            while left:
                for folder in [f for f in left if f not in stopped and stop_file(f).exists()]:
                    stopped.add(folder)
                    cancel_queued(folder)
                if time.monotonic() >= due:
                    with contextlib.suppress(NoAnswer):  # a controller that restarts: ask again
                        for folder, jobs in look(left).items():
                            if not any(job.alive for job in jobs.values()):
                                left.remove(folder)
                    pause = min(1.5 * pause, LONGEST)
                    due = time.monotonic() + pause
                time.sleep(0.5 if left else 0)

        return wait


class NoAnswer(Exception):
    """Slurm's message, or that there is none."""


def look(folders: Sequence[Path]) -> dict[Path, dict[int, Job]]:
    """The jobs of launches by the pack's index, as squeue describes them now; also noted in
    launch.json.

    Raises:
        NoAnswer: squeue is absent, fails or does not answer.
    """
    if not folders:
        return {}
    text = _squeue("--array", "--states=all", "--format=%j|%F|%K|%T|%r",
                   f"--name={','.join(folder.name for folder in folders)}")  # fmt: skip
    found = {}
    for folder in folders:
        launch = Launch.read(folder)
        if launch is not None:
            jobs = _jobs(text, folder.name, len(launch.packs), launch.jobs)
            if jobs != launch.jobs:
                launch.model_copy(update={"jobs": jobs}).write(folder)
            found[folder] = jobs
    return found


def _jobs(text: str, name: str, packs: int, before: Mapping[int, Job]) -> dict[int, Job]:
    """The jobs of one launch in squeue's answer.

    A row without an index is a job that is no array, or the part of an array that was cancelled
    while it was queued: it describes all indices without a row. A job that squeue has forgotten
    keeps its end, or is gone.
    """
    rows = [row.split("|", 4) for row in text.splitlines()]
    own = [row[1:] for row in rows if len(row) == 5 and row[0] == name]
    shown = {i: Job(id=f"{a}_{i}", state=s, reason=r) for a, i, s, r in own if i.isdigit()}
    jobs = {int(i): job for i, job in shown.items()}
    rest = next((Job(id=a, state=s, reason=r) for a, i, s, r in own if not i.isdigit()), None)
    for index in range(packs):
        last = before.get(index)
        if index in jobs:
            continue
        if rest is not None:
            jobs[index] = rest
        elif last is not None:
            jobs[index] = last.model_copy(update={"state": "GONE"}) if last.alive else last
    return dict(sorted(jobs.items()))


def cancel_queued(folder: Path) -> None:
    """Take the jobs of a launch that have not begun out of the queue."""
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        subprocess.run(
            ["scancel", "--state=PENDING", f"--name={folder.name}"],
            capture_output=True, timeout=QUEUE_TIMEOUT, check=False,
        )  # fmt: skip


def _squeue(*words: str) -> str:
    if shutil.which("squeue") is None:
        raise NoAnswer("there is no squeue here: this is no machine of a Slurm cluster")
    try:
        done = subprocess.run(
            ["squeue", "--noheader", *words], capture_output=True, text=True, timeout=QUEUE_TIMEOUT
        )
    except subprocess.TimeoutExpired:
        raise NoAnswer(f"squeue did not answer within {QUEUE_TIMEOUT} s") from None
    if done.returncode:
        raise NoAnswer(f"squeue failed: {' '.join(done.stderr.split())}")
    return done.stdout


# --- inside a job --------------------------------------------------------------------------------


class Work:
    """What a job calls. Interrupted before its pack is done, it asks Slurm to run it again.

    `checkpoint` is submitit's name for what runs after an interruption; it is called while the
    worker itself does not yet, or no longer, listen to signals.
    """

    def __call__(self, path: str) -> None:
        pkgutil.resolve_name(WORKER)(path)
        if interrupted(Pack.read(path)):
            requeue()

    def checkpoint(self, path: str) -> Any:
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self, path)


def interrupted(pack: Pack) -> bool:
    """Whether a worker ended before its pack, and neither by the stop file nor by the clock."""
    status = Status.read(Path(pack.folder)).get(pack.index)
    deadline = pack.execution.deadline
    late = deadline is not None and time.time() > deadline
    if status is None or status.error or late or stop_file(pack.folder).exists():
        return False
    return not status.ended.issuperset(plan.name for plan in pack.stacks)


def requeue() -> None:
    """Put this job back into the queue, unless it was cancelled or that was done too often."""
    own = job_id()
    if int(os.environ.get("SLURM_RESTART_COUNT", "0")) >= REQUEUES:
        print(f"requeued {REQUEUES} times already: it ends here", file=sys.stderr)
    elif _squeue(f"--jobs={own}", "--format=%T").strip() == "RUNNING":  # else it was cancelled
        subprocess.run(["scontrol", "requeue", own], timeout=QUEUE_TIMEOUT, check=True)


def job_id() -> str:
    """Of the job that this process is in. The plain number of an array's last job names all."""
    array, index = (os.environ.get(f"SLURM_ARRAY_{word}") for word in ("JOB_ID", "TASK_ID"))
    return f"{array}_{index}" if array else os.environ["SLURM_JOB_ID"]
