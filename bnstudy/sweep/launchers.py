"""Workers of this machine: in the planner itself, or a process each that takes over its memory."""

import contextlib
import multiprocessing
import os
import pkgutil
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Protocol

from bnstudy.sweep.protocol import Pack

WORKER = "bnstudy.work.worker:run_pack"
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS")
Wait = Callable[[], None]


class Launcher(Protocol):
    """Starts workers for packs and returns what waits until all have ended, however they did.

    Two calls, because forked workers must begin before the planner starts a thread to watch them.
    Either may raise when the workers could not be begun or were lost.
    """

    __name__: str

    def __call__(self, packs: list[Pack], /) -> Wait: ...


class Cluster(Launcher, Protocol):
    """A launcher whose jobs outlive the planner: another planner must not submit them again."""

    def sole(self, launches: Path, /) -> AbstractContextManager[object]:
        """While planners look at what is queued and submit the rest: one at a time."""
        ...

    def underway(self, launches: Path, /) -> list[Path]:
        """The launches, folders below `launches`, with jobs that are queued or run."""
        ...

    def following(self, folders: Sequence[Path], /) -> Wait:
        """What waits until all jobs of these launches have ended."""
        ...


def in_process(packs: list[Pack]) -> Wait:
    """The planner works itself, pack after pack: no process is started."""

    def work() -> None:
        for pack in packs:
            pkgutil.resolve_name(WORKER)(str(pack.path))

    return work


def forked(packs: list[Pack]) -> Wait:
    """A process for each pack that has what the planner imported and loaded, at no cost."""
    pkgutil.resolve_name(WORKER)  # once, not in each of them
    return _processes(packs, "fork")


def spawned(packs: list[Pack]) -> Wait:
    """A fresh process for each pack, which imports everything by itself."""
    return _processes(packs, "spawn")


def local(device: str) -> Callable[[list[Pack]], Wait]:
    """`forked` where that is safe, else `spawned`.

    A fork copies one thread and all locks: the planner must have no other thread, and must not
    have touched a GPU. macOS's own libraries start threads.

    Args:
        device: as the command line has it; "auto" may be a GPU.
    """
    if not hasattr(os, "fork") or sys.platform == "darwin" or threads() > 1:
        return spawned
    return spawned if device == "cuda" or gpu_seen() else forked


def threads() -> int:
    """Threads of this process, those of native libraries included where that can be known."""
    tasks = Path("/proc/self/task")
    return len(list(tasks.iterdir())) if tasks.is_dir() else threading.active_count()


def gpu_seen() -> bool:
    """Whether torch has a GPU here, as far as it is loaded."""
    torch: Any = sys.modules.get("torch")
    return torch is not None and torch.cuda.is_available()


def _processes(packs: list[Pack], method: str) -> Wait:
    context: Any = multiprocessing.get_context(method)
    sys.stdout.flush()
    processes = [
        context.Process(target=_work, args=(str(pack.path),), name=f"worker {pack.index}")
        for pack in packs
    ]
    for process in processes:
        process.start()

    def wait() -> None:
        for process in processes:
            process.join()

    return wait


def _work(path: str) -> None:
    """The life of a worker."""
    pkgutil.resolve_name(WORKER)(path)


@contextlib.contextmanager
def single_threaded() -> Iterator[None]:
    """Workers inherit one thread for every numerical library, set before these start."""
    before = {name: os.environ.get(name) for name in THREADS}
    os.environ.update(dict.fromkeys(THREADS, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
