"""How far a sweep is, from the files of its launches: for those who wait or look on."""

import contextlib
import os
import socket
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bnstudy.sweep.protocol import Job, Launch, StackStatus, State, Status, stop_file

SILENT = 120  # seconds after which a process of another machine counts as dead


def eta(
    statuses: Sequence[Status], now: float, total: float | None = None
) -> tuple[float, float | None]:
    """(fraction done, seconds left or None while nothing can be said).

    The pace is measured: estimated seconds done per second of a worker, since its first step. What
    is left is what the worker with the most left has left, or what all have and what no worker has
    begun, shared among those that work.

    Args:
        total: estimated seconds of all packs, where some may still be without a worker.
    """
    begun = [s for s in statuses if s.started]
    total = total or sum(s.total_seconds for s in statuses)
    if not begun or total <= 0:
        return 0.0, None
    done = sum(s.done_seconds for s in statuses)
    fraction = min(1.0, done / total)
    # a worker that has ended wrote its last word then
    elapsed = sum((min(now, s.heartbeat + 1) if s.heartbeat else now) - s.started for s in begun)
    pace = sum(s.done_seconds for s in begun) / max(elapsed, 1e-9)
    if elapsed < 5 or pace <= 0:
        return fraction, None
    rests = [s.total_seconds - s.done_seconds for s in statuses]
    working = sum(rest > 0 for rest in rests) or 1
    return fraction, max(*rests, (total - done) / working) / pace


def clock(seconds: float | None) -> str:
    """Seconds as 3:07, or ?."""
    if seconds is None:
        return "?"
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"


def remaining(fraction: float, left: float | None) -> str:
    """What is left in words; once every estimated second is used up, training is over."""
    used_up = fraction > 0.99 and left is not None and left < 2
    return "evaluating" if used_up else f"ETA {clock(left)}"


@dataclass(frozen=True)
class Sweep:
    """The launches of one command, the oldest first, and how far they are."""

    launches: list[Launch]
    models: Counter[State]  # networks by state; planned: queued, or behind others in a pack
    alive: bool  # whether anybody works on it or will
    fraction: float  # of the last launch's estimated seconds
    left: float | None  # seconds
    rate: float | None  # networks a minute
    doing: list[str]  # which stacks are being trained, and what was last measured
    waiting: list[Job]  # jobs in the queue of a cluster
    stacks: Counter[State]

    @property
    def last(self) -> Launch:
        """Its newest launch, which says what the command was."""
        return self.launches[-1]


def sweeps(launches: Path) -> dict[str, list[Path]]:
    """The folders of the launches below a folder, by sweep, the oldest first."""
    found: dict[str, list[Path]] = {}
    for path in sorted(launches.glob("*/launch.json")):
        if launch := Launch.read(path.parent):
            found.setdefault(launch.sweep, []).append(path.parent)
    return found


def sweep(folders: Sequence[Path], now: float | None = None) -> Sweep:
    """How far the launches of one sweep are."""
    now = time.time() if now is None else now
    states: dict[str, tuple[State, int]] = {}
    heard: list[tuple[Launch, list[Status]]] = []
    alive, waiting, doing = False, list[Job](), list[str]()
    read = [(f, launch) for f in folders if (launch := Launch.read(f)) is not None]
    for folder, launch in sorted(read, key=lambda pair: pair[1].begun):
        said, stopping = Status.read(folder), stop_file(folder).exists()
        heard.append((launch, list(said.values())))
        waiting += [job for job in launch.jobs.values() if job.state == "PENDING"]
        for index, stacks in enumerate(launch.packs):
            status, job = said.get(index), launch.jobs.get(index)
            lives = _lives(launch, status, job, now)
            alive |= lives
            if status and lives and not status.idle and (job is None or job.state == "RUNNING"):
                doing.append(f"{status.current} {status.metric}".strip())
            for name, networks in stacks.items():
                own = status.stacks.get(name) if status else None
                states[name] = _state(own, lives, job, stopping), networks
    models = Counter[State]()
    for state, networks in states.values():
        models[state] += networks
    going = [(la, said) for la, said in heard if la.ended is None] or heard
    statuses = [s for _, said in going for s in said]
    fraction, left = eta(statuses, now, sum(la.seconds for la, _ in going))
    return Sweep(
        launches=[launch for launch, _ in heard],
        models=models,
        alive=alive,
        fraction=fraction,
        left=left,
        rate=_rate(models[State.DONE], [s for _, said in heard for s in said], alive, now),
        doing=[text for text in doing if text],
        waiting=waiting,
        stacks=Counter(state for state, _ in states.values()),
    )


def _rate(done: int, statuses: Sequence[Status], alive: bool, now: float) -> float | None:
    """Networks a minute since the first step of the first worker."""
    started = min((s.started for s in statuses if s.started), default=now)
    until = now if alive else max((s.heartbeat for s in statuses), default=now)
    return 60 * done / (until - started) if until > started else None


def _state(own: StackStatus | None, lives: bool, job: Job | None, stopping: bool) -> State:
    """Of a stack, as its worker told it before it was interrupted or died."""
    if own is not None and own.state in (State.DONE, State.FAILED):
        return own.state
    if lives:
        queued = own is None or (job is not None and job.state != "RUNNING")
        return State.PLANNED if queued else State.RUNNING
    return State.STOPPED if stopping or (own and own.state is State.STOPPED) else State.DIED


def _lives(launch: Launch, status: Status | None, job: Job | None, now: float) -> bool:
    """Whether a pack still has a worker, or will have one."""
    if launch.ended is not None:
        return False
    if job is not None:
        return job.alive
    if status is None:  # not begun: that is up to the planner
        return _process_lives(launch.host, launch.pid, launch.begun, now)
    return _process_lives(status.host, status.pid, status.heartbeat, now)


def _process_lives(host: str, pid: int, heard: float, now: float) -> bool:
    if host != socket.gethostname():
        return now - heard < SILENT
    with contextlib.suppress(OSError):  # one that nobody has waited for is dead all the same
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True  # somebody else's
    return True
