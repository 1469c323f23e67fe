"""A pack in a process: train its stacks one after another, say how far, stop when asked."""

import contextlib
import os
import signal
import threading
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import torch

from bnstudy.config import Config
from bnstudy.errors import UserError
from bnstudy.machine import keep_memory
from bnstudy.norms import TooFewValues
from bnstudy.store import Store
from bnstudy.sweep.protocol import Pack, StackPlan, StackStatus, State, Status, stop_file
from bnstudy.tracking import Mirror
from bnstudy.work import record
from bnstudy.work.trainer import Trainer, device

LOOK_EVERY = 0.5  # seconds between status files, and between looks for the stop file


class Stopped(BaseException):
    """The planner asked this worker to stop, or is gone, or a signal said so.

    Not an Exception: nobody's `except Exception` may swallow it.
    """


def run_pack(path: str) -> dict[str, Any]:
    """Train the stacks of a pack; what a launcher calls in its worker.

    Never raises: a stack that fails is reported in the status with its traceback, the others go
    on. Stops between two steps when the stop file appears or SIGTERM comes; a worker whose parent
    is gone exits.
    """
    pack = Pack.read(path)
    own_process = os.getpid() != int((Path(pack.folder) / "planner.pid").read_text())
    torch.set_num_threads(1)
    keep_memory()
    # not use_deterministic_algorithms, which does the same and imports the compiler: 3 to 11 s
    torch.set_deterministic_debug_mode("error")
    status = Status(total_seconds=sum(plan.seconds for plan in pack.stacks))
    try:
        with _signals(own_process):
            Worker(pack, status, os.getppid() if own_process else None).work()
    except Stopped:
        pass
    except Exception:
        status.error = traceback.format_exc()
    status.write(pack.folder, pack.index)
    return {state.value: sum(s.state is state for s in status.stacks.values()) for state in State}


@contextlib.contextmanager
def _signals(own_process: bool) -> Iterator[None]:
    """In a worker of its own Ctrl-C is the planner's to handle, and SIGTERM stops the work."""
    if not own_process or threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(signum: int, frame: FrameType | None) -> None:
        raise Stopped

    before = {
        signal.SIGINT: signal.signal(signal.SIGINT, signal.SIG_IGN),
        signal.SIGTERM: signal.signal(signal.SIGTERM, stop),
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class Worker:
    """One worker at its pack."""

    def __init__(self, pack: Pack, status: Status, parent: int | None) -> None:
        """`parent` is the process that this one must not outlive, if it is one of its own."""
        self.pack, self.status, self.parent = pack, status, parent
        self.store = Store(Path(pack.execution.results_dir) / "runs")
        self.trainer = Trainer(pack.execution, self.store.root, device(pack.execution.device))
        self.looked = 0.0

    def work(self) -> None:
        """Bring every stack of the pack into the store, or say why not."""
        self._write()
        for plan in self.pack.stacks:
            deadline = self.pack.execution.deadline
            if deadline is not None and time.time() > deadline:
                return
            own = self.status.stacks[plan.name] = StackStatus(state=State.RUNNING)
            self.status.current = plan.label
            behind = self.status.done_seconds
            try:
                self.train(plan)
                own.state = State.DONE
            except Stopped:
                own.state = State.STOPPED
                raise
            except Exception as error:
                own.state, own.error = State.FAILED, explained(error)
            self.status.done_seconds = behind + plan.seconds
            self._write()

    def train(self, plan: StackPlan) -> None:
        """Train one stack and store it, unless somebody else has meanwhile."""
        cells = {config.cell for config in plan.configs}
        if self.store.holds(plan.addresses, cells):
            return
        begin, behind = time.perf_counter(), self.status.done_seconds

        def on_step(fraction: float) -> None:
            now = time.monotonic()
            if now - self.looked >= LOOK_EVERY:
                self.looked = now
                self.status.started = self.status.started or time.time()
                self.status.done_seconds = behind + fraction * plan.seconds
                self.look()

        def on_rows(configs: list[Config], rows: list[dict[str, Any]]) -> None:
            error = sum(row["test_error"] for row in rows) / len(rows)
            self.status.metric = f"test error {100 * error:.1f} %"
            mirror.log(configs, rows)

        execution = self.pack.execution
        tags = [plan.configs[0].norm.name, record.git_state()["commit"][:7] or "no-commit"]
        folder = Path(execution.results_dir) / "wandb"
        group = execution.study or "ad-hoc"
        with Mirror(execution.tracker, folder, group, tags, plan.configs) as mirror:
            trained = self.trainer.train(plan.configs, on_step, on_rows)
            mirror.summaries = record.summaries(trained)
        self.status.tracker = mirror.status
        made = record.provenance(
            execution,
            self.trainer.device,
            time.perf_counter() - begin,
            len(plan.configs),
            mirror.status,
        )
        self.store.put_all(record.deliveries(trained, made))

    def look(self) -> None:
        """Say how far this worker is; stop if that is wanted."""
        self._write()
        if self.parent is not None and os.getppid() != self.parent:
            os._exit(1)  # the planner was killed: nobody would give this process work or end it
        if stop_file(self.pack.folder).exists():
            raise Stopped

    def _write(self) -> None:
        self.status.write(self.pack.folder, self.pack.index)


def explained(error: Exception) -> str:
    """A mistake of the person's as its message, anything else with its traceback."""
    if isinstance(error, UserError | TooFewValues):
        return str(error)
    return "".join(traceback.format_exception(error))
