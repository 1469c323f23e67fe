"""Workers of this machine: in the planner itself, or a process each that takes over its memory."""

import multiprocessing
import os
import pkgutil
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from bnstudy.sweep.protocol import Pack

WORKER = "bnstudy.work.worker:run_pack"
Wait = Callable[[], None]


class Launcher(Protocol):
    """Starts workers for packs and returns what waits until all have ended, however they did.

    Two calls, because forked workers must begin before the planner starts a thread to watch them.
    Either may raise when the workers could not be begun or were lost.
    """

    def __call__(self, packs: list[Pack], /) -> Wait: ...


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
