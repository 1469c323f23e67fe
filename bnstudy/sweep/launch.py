"""Train missing stacks with workers that may die: launch, look at their results, relaunch.

On a cluster jobs outlive their planner: what is queued or runs already, whoever submitted it, is
waited for and not submitted again. Nothing here prints or exits: what happens is told to callbacks,
how it ended is the `Outcome`.
"""

import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures.process import BrokenProcessPool
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path

from bnstudy.errors import UserError, count
from bnstudy.sweep.begin import Begun, Held, begin, end, jobs_of
from bnstudy.sweep.launchers import Launcher
from bnstudy.sweep.plan import Divide
from bnstudy.sweep.protocol import Execution, Pack, StackPlan, StackStatus, State, Status

RELAUNCHES = 2  # of stacks that a launch lost
LOST = {
    State.DIED: "a worker died",
    State.REMOVED: "what was stored is gone again (bnstudy rm, or damage)",
}


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
    divide: Divide,
    held: Held,
    watch: Callable[[Sequence[Path]], AbstractContextManager[object]],
    say: Callable[[str], None],
) -> Outcome:
    """Train stacks; those that were lost (see LOST) are launched again, twice at most.

    Args:
        stacks: what is missing.
        execution: how to compute; its deadline ends the launch between two stacks.
        launcher: runs packs in workers.
        divide: makes packs of stacks.
        held: what the store has of some cells.
        watch: context manager around each launch, given the folders of its status files; may
            create the `stop_file` there to stop all workers.
        say: receives a sentence when something worth knowing happens on the way.
    """
    outcome = Outcome([Fate(plan) for plan in stacks])
    to_run, begun = list(outcome.stacks), Begun()
    noted: set[str] = set()
    for attempt in range(1 + RELAUNCHES):
        for fate in to_run:
            fate.state, fate.launches = State.PLANNED, fate.launches + 1
        error, last, begun = None, begun, Begun()
        try:
            plans = [fate.plan for fate in to_run]
            begin(plans, execution, launcher, divide, held, begun, last.folders)
            if taken := len(begun.packs) - len(begun.submitted):
                say(f"waiting for {count(taken, 'job')} that an earlier command submitted")
            with watch(begun.folders):
                begun.wait()
        except UserError:
            end([begun.new] if begun.new else [])
            raise
        except Exception as raised:  # a launcher that breaks has lost workers, no more
            error = raised
        statuses = begun.statuses()
        outcome.tracker = next((s.tracker for s in statuses.values() if s.tracker), outcome.tracker)
        for note in [n for status in statuses.values() for n in status.notes]:
            if note not in noted:
                noted.add(note)
                say(note)
        stopped = begun.stopped()
        late = execution.deadline is not None and time.time() > execution.deadline
        settle(to_run, begun.packs, statuses, held, stopped or late)
        end(begun.folders)
        to_run = [fate for fate in to_run if fate.state in LOST]
        lost = "" if error is None else f"{type(error).__name__}: {error}"
        if to_run and not statuses and not isinstance(error, BrokenProcessPool):
            lost = lost or _never_began(begun)
            if lost:  # no worker ever began: again would be the same
                outcome.launcher_error = lost
                for fate in to_run:
                    fate.state = State.PLANNED
                break
        if error is not None:
            say(f"the launcher ended early: {lost}")
        if not to_run or stopped or late or attempt == RELAUNCHES:
            break
        for state, number in Counter(fate.state for fate in to_run).items():
            say(f"{count(number, 'stack')} missing because {LOST[state]}: launching again")
    return outcome


def _never_began(begun: Begun) -> str:
    """Why the jobs of a cluster ended without a word from any worker; empty elsewhere."""
    states = jobs_of(begun.packs)
    if not states:
        return ""
    said = ", ".join(sorted({f"{job.id} {job.state}" for job in states.values()}))
    return f"no job began to work ({said}); their output is in {begun.folders[-1] / 'jobs'}"


def settle(
    fates: Sequence[Fate],
    packs: Sequence[Pack],
    statuses: dict[tuple[str, int], Status],
    held: Held,
    stopped: bool,
) -> None:
    """Give each stack of a launch that is over its one state.

    What counts, in this order: the store has all its runs (whoever brought them); its worker said
    that it failed, or failed as a whole; its worker stored it, and somebody removed it; its worker
    fell silent in the middle of it; the launch was to stop; its worker was gone before it began.

    Args:
        fates: stacks that were in the packs; changed in place.
        packs: as they were launched.
        statuses: what workers last wrote, by the pack's folder and index; one that never began
            has none.
        held: what the store has of some cells.
        stopped: whether the workers were asked to stop, or had to by the clock.
    """
    there = set(held({c.cell for fate in fates for c in fate.plan.configs}))
    said: dict[str, StackStatus] = {}
    killed = {key: f"{job.state}, job {job.id}" for key, job in jobs_of(packs).items()}
    how: dict[str, str] = {}
    for pack in packs:
        status = statuses.get((pack.folder, pack.index), Status())
        how |= {plan.name: killed.get((pack.folder, pack.index), "") for plan in pack.stacks}
        for plan in pack.stacks:
            own = status.stacks.get(plan.name, StackStatus())
            if status.error and own.state is not State.FAILED:
                own = StackStatus(state=State.FAILED, error=status.error)
            said[plan.name] = own
    for fate in fates:
        own = said.get(fate.plan.name, StackStatus())  # none: the launcher refused its pack
        if there.issuperset(fate.plan.addresses):
            fate.state = State.DONE
        elif own.state is State.FAILED:
            fate.state, fate.error = State.FAILED, own.error
        elif own.state is State.DONE:
            fate.state = State.REMOVED
        elif stopped and own.state is not State.RUNNING:
            fate.state = State.STOPPED
        else:
            fate.state, fate.error = State.DIED, how.get(fate.plan.name, "")
