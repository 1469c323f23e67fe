"""Train missing stacks with workers that may die: launch, look at their results, relaunch.

Nothing here prints or exits: what happens is told to callbacks, how it ended is the `Outcome`.
"""

import os
import time
import uuid
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from concurrent.futures.process import BrokenProcessPool
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path

from bnstudy.atomic import write_atomically
from bnstudy.errors import UserError, count
from bnstudy.sweep.launchers import Launcher
from bnstudy.sweep.plan import balance
from bnstudy.sweep.protocol import (
    Execution,
    Pack,
    StackPlan,
    StackStatus,
    State,
    Status,
    stop_file,
)

RELAUNCHES = 2  # of stacks whose worker died

Held = Callable[[Collection[str]], Collection[str]]
"""Cells -> addresses of their runs in the store."""


@dataclass
class Fate:
    """A stack and its state."""

    plan: StackPlan
    state: State = State.PLANNED
    error: str = ""
    launches: int = 0


@dataclass
class Outcome:
    """How a launch ended: the state of every stack that was missing."""

    stacks: list[Fate] = field(default_factory=list)
    tracker: str = ""  # what the workers said of W&B
    launcher_error: str = ""  # of a launcher whose workers never began

    def of(self, *states: State) -> list[Fate]:
        """The stacks in these states."""
        return [fate for fate in self.stacks if fate.state in states]

    @property
    def trained(self) -> int:
        """Networks that are in the store now."""
        return sum(len(fate.plan.configs) for fate in self.of(State.DONE))

    @property
    def complete(self) -> bool:
        """Whether nothing is missing any more."""
        return len(self.of(State.DONE)) == len(self.stacks)

    @property
    def counts(self) -> dict[State, int]:
        """Stacks by state; states that no stack is in are left out."""
        return dict(Counter(fate.state for fate in self.stacks))


def launch(
    stacks: Sequence[StackPlan],
    execution: Execution,
    launcher: Launcher,
    workers: int,
    held: Held,
    watch: Callable[[Path], AbstractContextManager[object]],
    say: Callable[[str], None],
) -> Outcome:
    """Train stacks; those whose worker died are launched again, twice at most.

    Args:
        stacks: what is missing.
        execution: how to compute; its deadline ends the launch between two stacks.
        launcher: runs packs in workers.
        workers: packs to make, at most.
        held: what the store has of some cells.
        watch: context manager around each launch, given the folder of its status files; may
            create the `stop_file` there to stop all workers.
        say: receives a sentence when something worth knowing happens on the way.
    """
    outcome = Outcome([Fate(plan) for plan in stacks])
    to_run = list(outcome.stacks)
    noted: set[str] = set()
    for attempt in range(1 + RELAUNCHES):
        folder = _new_folder(Path(execution.results_dir))
        packs = [
            Pack(index=i, folder=str(folder), execution=execution, stacks=part)
            for i, part in enumerate(balance([f.plan for f in to_run], workers))
        ]
        for pack in packs:
            pack.write()
        for fate in to_run:
            fate.state, fate.launches = State.PLANNED, fate.launches + 1
        error = None
        try:
            wait = launcher(packs)
            with watch(folder):
                wait()
        except UserError:
            raise
        except Exception as raised:  # a launcher that breaks has lost workers, no more
            error = raised
        statuses = Status.read(folder)
        outcome.tracker = next((s.tracker for s in statuses.values() if s.tracker), outcome.tracker)
        for note in [n for status in statuses.values() for n in status.notes]:
            if note not in noted:
                noted.add(note)
                say(note)
        stopped = stop_file(folder).exists()
        late = execution.deadline is not None and time.time() > execution.deadline
        settle(to_run, packs, statuses, held, stopped or late)
        to_run = [fate for fate in to_run if fate.state is State.DIED]
        if error is not None:
            what = f"{type(error).__name__}: {error}"
            if not statuses and not isinstance(error, BrokenProcessPool):
                outcome.launcher_error = what  # no worker ever began: again would be the same
                for fate in to_run:
                    fate.state = State.PLANNED
                break
            say(f"the launcher ended early: {what}")
        if not to_run or stopped or late or attempt == RELAUNCHES:
            break
        say(f"{count(len(to_run), 'stack')} missing because a worker died: launching again")
    return outcome


def settle(
    fates: Sequence[Fate],
    packs: Sequence[Pack],
    statuses: dict[int, Status],
    held: Held,
    stopped: bool,
) -> None:
    """Give each stack of a launch that is over its one state.

    What counts, in this order: the store has all its runs (whoever brought them); its worker said
    that it failed, or failed as a whole; its worker fell silent in the middle of it; the launch
    was to stop; its worker was gone before it began.

    Args:
        fates: stacks that were in the packs; changed in place.
        packs: as they were launched.
        statuses: what workers last wrote, by the pack's index; one that never began has none.
        held: what the store has of some cells.
        stopped: whether the workers were asked to stop, or had to by the clock.
    """
    there = set(held({c.cell for fate in fates for c in fate.plan.configs}))
    said: dict[str, StackStatus] = {}
    for pack in packs:
        status = statuses.get(pack.index, Status())
        for plan in pack.stacks:
            own = status.stacks.get(plan.name, StackStatus())
            if status.error and own.state is not State.FAILED:
                own = StackStatus(state=State.FAILED, error=status.error)
            said[plan.name] = own
    for fate in fates:
        own = said[fate.plan.name]
        if there.issuperset(fate.plan.addresses):
            fate.state = State.DONE
        elif own.state is State.FAILED:
            fate.state, fate.error = State.FAILED, own.error
        elif stopped and own.state is not State.RUNNING:
            fate.state = State.STOPPED
        else:
            fate.state = State.DIED


def _new_folder(results: Path) -> Path:
    """Where the files of one launch lie; it says whose it is."""
    name = f"{time.strftime('%Y%m%d-%H%M%S')}-{uuid.uuid4().hex[:8]}"
    folder = (results / "runs" / "launches" / name).absolute()
    folder.mkdir(parents=True)
    write_atomically(folder / "planner.pid", str(os.getpid()))
    return folder
