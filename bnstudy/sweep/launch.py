"""From a grid to a full store: plan what is missing, hand it to a Hydra launcher, look again."""

import contextlib
import os
import signal
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from bnstudy import data, entry
from bnstudy.atomic import write_atomically
from bnstudy.config import Config, digest
from bnstudy.config.compose import Composer, Request
from bnstudy.errors import UserError
from bnstudy.store import Store
from bnstudy.sweep import cost as costs
from bnstudy.sweep.protocol import Pack, StackPlan, Status, stop_file

RELAUNCHES = 2  # of what is missing because a worker died
LOCAL = ("BasicLauncher", "JoblibLauncher")  # these share this machine's cores


@dataclass(frozen=True)
class Plan:
    """What a request still needs."""

    cells: tuple[Config, ...]
    seeds: tuple[int, ...]
    stacks: tuple[StackPlan, ...]  # missing
    held: int  # runs that the store holds

    @property
    def runs(self) -> int:
        return len(self.cells) * len(self.seeds)

    @property
    def missing(self) -> int:
        return sum(len(s.configs) for s in self.stacks)

    @property
    def addresses(self) -> list[str]:
        return [a for cell in self.cells for a in addresses(cell, self.seeds)]

    @property
    def grid_hash(self) -> str:
        """Names the grid: the folder of its study's results."""
        return digest(sorted(self.addresses))[:8]

    def minutes(self, workers: int) -> float:
        """Estimated minutes with this many workers."""
        packs = balance(self.stacks, workers)
        return (costs.START + max((sum(s.seconds for s in p) for p in packs), default=0.0)) / 60


def resolve(config: Config, cache: Path) -> Config:
    """The config with the hashes of what lies outside it: data on disk, a user's own source.

    Raises:
        UserError: data that are not there, an entry that does not load.
    """
    update: dict[str, Any] = {"data": data.resolve(config.data, cache)}
    for part, key in (("model", "model.entry"), ("norm", "norm.entry")):
        value = getattr(config, part)
        if value.name == "custom":
            source = entry.source_hash(value.entry, key)
            update[part] = value.model_copy(update={"source": source})
    return config.model_copy(update=update)


def addresses(cell: Config, seeds: Sequence[int]) -> list[str]:
    """Addresses of a cell's runs."""
    return [cell.model_copy(update={"seed": seed}).address for seed in seeds]


def make_plan(
    request: Request, cells: tuple[Config, ...], store: Store, estimate: Callable[..., float]
) -> Plan:
    """Subtract what the store holds from the grid; the rest, as stacks.

    Cells that differ in `capabilities.NUMBERS` only may train together. The networks of a family
    are cut into stacks by the full request alone, never by what the store holds. A stack is stored
    all or nothing, so what is missing after a kill is whole stacks, and they train again exactly as
    they would have; runs that another request has left are kept.

    Args:
        cells: the request's cells with their hashes filled in.
        estimate: (config, number of networks) -> seconds; called for missing stacks only.
    """
    named = {cell.cell: cell for cell in cells}
    held = store.held(list(named))
    stacks, count = [], 0
    for members in partition(tuple(named.values()), request.seeds, request.settings.max_stack):
        missing = [c for c in members if c.address not in held]
        count += len(members) - len(missing)
        if missing:
            stacks.append(StackPlan(configs=missing, seconds=estimate(missing[0], len(missing))))
    return Plan(tuple(named.values()), request.seeds, tuple(stacks), count)


def partition(
    cells: Sequence[Config], seeds: Sequence[int], max_stack: int | None
) -> Iterator[list[Config]]:
    """The networks of a grid as stacks: those of a family together, at most `max_stack` each.

    The seeds of a cell stay together where they fit.
    """
    families: dict[str, list[Config]] = {}
    for cell in cells:
        families.setdefault(cell.family, []).append(cell)
    for family in families.values():
        size = max_stack or costs.stack_size(family[0])
        whole = max(size // len(seeds), 1)  # cells in a stack
        for start in range(0, len(family), whole):
            here = family[start : start + whole]
            networks = [c.model_copy(update={"seed": seed}) for c in here for seed in seeds]
            # equal parts: 10 networks at 8 a stack are 5 and 5, not 8 and 2
            part = -(-len(networks) // -(-len(networks) // size))
            for first in range(0, len(networks), part):
                yield networks[first : first + part]


def balance(stacks: Sequence[StackPlan], workers: int) -> list[list[StackPlan]]:
    """Longest first, each to the worker with the least to do: short ones last, all end together."""
    packs: list[list[StackPlan]] = [[] for _ in range(max(1, min(workers, len(stacks))))]
    load = [0.0] * len(packs)
    for stack in sorted(stacks, key=lambda s: -s.seconds):
        lightest = load.index(min(load))
        packs[lightest].append(stack)
        load[lightest] += stack.seconds
    return packs


def workers_for(request: Request) -> int:
    """Worker processes: `workers`, or one per core; never more than cores on this machine."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    target = str(request.hydra.hydra.launcher._target_).rpartition(".")[2]
    wanted = request.settings.workers or cores or 1
    if target == "BasicLauncher":
        return 1
    return min(wanted, cores or 1) if target in LOCAL else wanted


@dataclass
class Outcome:
    """How a launch ended."""

    missing: list[StackPlan] = field(default_factory=list)
    failures: list[dict[str, Any]] = field(default_factory=list)
    stopped: bool = False  # by Ctrl-C
    out_of_time: bool = False
    relaunched: int = 0
    tracker: str = ""


def run_job(config: DictConfig) -> dict[str, Any]:
    """What a Hydra launcher calls in a worker: run the pack that the job names."""
    from bnstudy.work.trainer import run_pack

    return run_pack(config.pack)


def launch(
    plan: Plan,
    request: Request,
    composer: Composer,
    store: Store,
    command: str,
    show: Callable[[Path], contextlib.AbstractContextManager[None]],
) -> Outcome:
    """Train the missing stacks with the chosen launcher; launch again what died, twice at most.

    Args:
        command: the command line, for the record and for resuming.
        show: context manager that shows the progress of a folder of status files.
    """
    runs = Path(request.settings.results_dir) / "runs"
    outcome = Outcome(missing=list(plan.stacks))
    minutes = request.settings.max_minutes
    deadline = time.time() + 60 * minutes if minutes else None
    for attempt in range(1 + RELAUNCHES):
        workers = workers_for(request)
        folder = runs / "launches" / f"{time.strftime('%Y%m%d-%H%M%S')}-{uuid.uuid4().hex[:8]}"
        folder.mkdir(parents=True)
        write_atomically(folder / "planner.pid", str(os.getpid()))
        packs = [
            Pack(
                index=i,
                folder=str(folder.absolute()),
                results_dir=str(Path(request.settings.results_dir).absolute()),
                stacks=stacks,
                device=request.settings.device,
                compile=request.settings.compile,
                save_weights=request.settings.save_weights,
                tracker=request.settings.tracker,
                study=request.study.name if request.study else "",
                command=command,
                deadline=deadline,
            )
            for i, stacks in enumerate(balance(outcome.missing, workers))
        ]
        for pack in packs:
            write_atomically(pack.path(), pack.model_dump_json())
        with _stopping_on_ctrl_c(folder) as stopping, show(folder):
            _hydra_launch(packs, request, composer, folder)
        outcome.relaunched = attempt
        statuses = Status.read(folder)
        outcome.failures += [f for s in statuses for f in s.failures]
        outcome.tracker = next((s.tracker for s in statuses if s.tracker), "")
        failed = {a for f in outcome.failures for a in f.get("addresses", ())}
        held = store.held([c.cell for s in outcome.missing for c in s.configs])
        outcome.missing = [
            s for s in outcome.missing if any(c.address not in held for c in s.configs)
        ]
        outcome.stopped = stopping.is_set()
        outcome.out_of_time = deadline is not None and time.time() > deadline
        again = [s for s in outcome.missing if not failed & {c.address for c in s.configs}]
        if not again or outcome.stopped or outcome.out_of_time or attempt == RELAUNCHES:
            break
        print(f"{len(again)} stacks are missing because a worker died: launching them again")
        outcome.missing = again
    return outcome


def _hydra_launch(packs: list[Pack], request: Request, composer: Composer, folder: Path) -> None:
    """Hand the packs to Hydra's launcher; a launcher that breaks has lost workers, no more."""
    from hydra._internal.callbacks import Callbacks
    from hydra.core.plugins import Plugins
    from hydra.types import HydraContext

    own = [o for o in request.overrides if o.startswith("hydra")]
    if len(packs) == 1 and not any(o.startswith("hydra/launcher=") for o in own):
        own.append("hydra/launcher=basic")  # one worker needs no second process
    quiet = [
        f"hydra.sweep.dir='{folder / 'hydra'}'",
        "hydra.sweep.subdir=${hydra.job.num}",
        "hydra/job_logging=none",
        "hydra/hydra_logging=none",
        f"workers={len(packs)}",
    ]
    config = composer.compose([*own, *quiet])
    launcher = Plugins.instance().instantiate_launcher(
        hydra_context=HydraContext(config_loader=composer.loader, callbacks=Callbacks(config)),
        task_function=run_job,
        config=config,
    )
    jobs = [[f"+pack='{pack.path()}'"] for pack in packs]
    try:
        with _single_threaded():
            launcher.launch(jobs, initial_job_idx=0)
    except (UserError, KeyboardInterrupt):
        raise
    except Exception as error:
        print(f"the launcher ended early: {type(error).__name__}", file=sys.stderr)


@contextlib.contextmanager
def _single_threaded() -> Iterator[None]:
    """Workers inherit one thread for every numerical library, set before these start."""
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS")
    before = {name: os.environ.get(name) for name in names}
    os.environ.update(dict.fromkeys(names, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


@contextlib.contextmanager
def _stopping_on_ctrl_c(folder: Path) -> Iterator[threading.Event]:
    """The first Ctrl-C asks the workers to stop between two steps; the second kills."""
    stopping = threading.Event()

    def handler(signum: int, frame: Any) -> None:
        if stopping.is_set():
            os._exit(130)  # workers stop at their next step: their parent is gone
        stopping.set()
        stop_file(folder).touch()
        print("\nstopping after what is complete is written; Ctrl-C again kills", flush=True)

    if threading.current_thread() is not threading.main_thread():
        yield stopping
        return
    before = signal.signal(signal.SIGINT, handler)
    try:
        yield stopping
    finally:
        signal.signal(signal.SIGINT, before)
