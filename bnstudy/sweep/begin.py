"""Start workers for stacks, or find those that a cluster has for them already."""

import os
import socket
import time
import uuid
from collections.abc import Callable, Collection, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

from bnstudy.atomic import write_atomically
from bnstudy.sweep.launchers import Cluster, Launcher, Wait
from bnstudy.sweep.plan import Divide
from bnstudy.sweep.protocol import (
    Execution,
    Job,
    Launch,
    Pack,
    StackPlan,
    Status,
    launches_dir,
    stop_file,
)

Held = Callable[[Collection[str]], Collection[str]]
"""Cells -> addresses of their runs in the store."""


@dataclass
class Begun:
    """Launches that train some stacks: a new one, and those that were under way before."""

    packs: list[Pack] = field(default_factory=list)  # of all of them
    new: Path | None = None  # the folder of the new one
    wait: Wait = lambda: None

    @property
    def folders(self) -> list[Path]:
        """Of the launches, the oldest first."""
        return sorted({Path(pack.folder) for pack in self.packs})

    @property
    def submitted(self) -> list[Pack]:
        """The packs of the new launch."""
        return [pack for pack in self.packs if Path(pack.folder) == self.new]

    def statuses(self) -> dict[tuple[str, int], Status]:
        """What workers last wrote, by the folder and the index of the pack."""
        return {(str(f), i): s for f in self.folders for i, s in Status.read(f).items()}

    def stopped(self) -> bool:
        """Whether workers were asked to stop."""
        return any(stop_file(folder).exists() for folder in self.folders)


def begin(
    stacks: Sequence[StackPlan],
    execution: Execution,
    launcher: Launcher,
    divide: Divide,
    held: Held,
    begun: Begun,
    before: Sequence[Path] = (),
) -> None:
    """Start workers for stacks, except for those that a job of a cluster has already.

    Args:
        held: what the store has of some cells.
        begun: filled in, step by step: it tells what was begun even if the launcher raises.
        before: folders of the launches whose lost stacks these are, the oldest first.
    """
    launches, cluster = launches_dir(execution.results_dir), _cluster(launcher)
    with cluster.sole(launches) if cluster else nullcontext():
        begun.packs = taken_over(stacks, cluster.underway(launches)) if cluster else []
        taken = {plan.name for pack in begun.packs for plan in pack.stacks}
        rest = [plan for plan in stacks if plan.name not in taken]
        if cluster:  # a job may have stored its stack, and ended, since the plan was made
            there = set(held({c.cell for plan in rest for c in plan.configs}))
            rest = [plan for plan in rest if not there.issuperset(plan.addresses)]
        if rest:
            begun.new = new_folder(launches)
            packs = [
                Pack(index=i, folder=str(begun.new), execution=execution, stacks=part)
                for i, part in enumerate(divide(rest))
            ]
            earlier = Launch.read([*before, *begun.folders][0]) if before or taken else None
            begun.packs += packs
            for pack in packs:
                pack.write()
            describe(packs, earlier.sweep if earlier else begun.new.name).write(begun.new)
            begun.wait = launcher(packs)
    if cluster:
        begun.wait = cluster.following(begun.folders)


def taken_over(stacks: Sequence[StackPlan], underway: Sequence[Path]) -> list[Pack]:
    """The packs of live jobs that have some of these stacks still before them.

    A pack keeps what its worker knows of it: stacks that it has ended without storing them are not
    taken from it, nor those that consist of other runs.
    """
    wanted = {plan.name: plan.addresses for plan in stacks}
    packs = []
    for folder in underway:
        launch, statuses = Launch.read(folder), Status.read(folder)
        alive = [i for i, job in launch.jobs.items() if job.alive] if launch else []
        for index in alive:
            pack = Pack.read(Pack.path_of(folder, index))
            ended = statuses.get(index, Status()).ended
            ahead = [plan for plan in pack.stacks if plan.name not in ended]
            own = [plan for plan in ahead if wanted.get(plan.name) == plan.addresses]
            if own:
                packs.append(pack.model_copy(update={"stacks": own}))
    return packs


def describe(packs: Sequence[Pack], sweep: str) -> Launch:
    """A launch for those who look at its folder later; `sweep` names its command's launches."""
    execution = packs[0].execution
    return Launch(
        sweep=sweep,
        host=socket.gethostname(),
        pid=os.getpid(),
        begun=time.time(),
        launcher=execution.launcher,
        command=execution.command,
        study=execution.study,
        scale=execution.scale,
        seconds=sum(plan.seconds for pack in packs for plan in pack.stacks),
        packs=[{plan.name: len(plan.configs) for plan in pack.stacks} for pack in packs],
    )


def end(folders: Sequence[Path]) -> None:
    """Note that launches are over and settled."""
    for folder in folders:
        if launch := Launch.read(folder):
            launch.model_copy(update={"ended": time.time()}).write(folder)


def _cluster(launcher: Launcher) -> Cluster | None:
    return cast(Cluster, launcher) if hasattr(launcher, "underway") else None


def jobs_of(packs: Sequence[Pack]) -> dict[tuple[str, int], Job]:
    """The jobs of a cluster that have packs, as last seen, by the pack's folder and index."""
    launches = {pack.folder: Launch.read(Path(pack.folder)) for pack in packs}
    return {
        (pack.folder, pack.index): launch.jobs[pack.index]
        for pack in packs
        if (launch := launches[pack.folder]) is not None and pack.index in launch.jobs
    }


def new_folder(launches: Path) -> Path:
    """Where the files of one launch lie; it says whose it is."""
    folder = launches / f"{time.strftime('%Y%m%d-%H%M%S')}-{uuid.uuid4().hex[:8]}"
    folder.mkdir(parents=True)
    write_atomically(folder / "planner.pid", str(os.getpid()))
    return folder
