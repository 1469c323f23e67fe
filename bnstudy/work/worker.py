"""A pack in a process: train its stacks one after another, say how far, stop when asked."""

import contextlib
import os
import signal
import threading
import time
import traceback
from collections import Counter, deque
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import torch

from bnstudy.config import Config
from bnstudy.errors import UserError
from bnstudy.machine import git_state, keep_memory
from bnstudy.norms import TooFewValues
from bnstudy.store import Store, Unwritable
from bnstudy.sweep.protocol import (
    Execution,
    Pack,
    StackPlan,
    StackStatus,
    State,
    Status,
    stop_file,
)
from bnstudy.tracking import Mirror, folder
from bnstudy.work import record
from bnstudy.work.checkpoint import Checkpoint
from bnstudy.work.claims import Claims
from bnstudy.work.failures import Failures
from bnstudy.work.trainer import Trained, Trainer, device

LOOK_EVERY = 0.5  # seconds between status files, and between looks for the stop file
# what a cluster sends before it kills: SIGTERM, or by submitit SIGUSR2 (which Windows lacks)
ENDING = tuple(getattr(signal, n) for n in ("SIGTERM", "SIGUSR2") if hasattr(signal, n))


class Stopped(BaseException):
    """The planner asked this worker to stop, or is gone, or a signal said so.

    Not an Exception: nobody's `except Exception` may swallow it.
    """


def run_pack(path: str) -> dict[str, Any]:
    """Train the stacks of a pack; what a launcher calls in its worker.

    Never raises: a stack that fails is noted with its traceback (`failures`), the others go on.
    Stops between two steps, leaving a checkpoint, when the stop file appears, a signal of ENDING
    comes, or its parent is gone.
    """
    pack = Pack.read(path)
    own_process = os.getpid() != int((Path(pack.folder) / "planner.pid").read_text())
    report = Report(pack, os.getppid() if own_process else None)
    torch.set_num_threads(1)
    keep_memory()
    # not use_deterministic_algorithms, which does the same and imports the compiler: 3 to 11 s
    torch.set_deterministic_debug_mode("error")
    with _signals(report, own_process):
        try:
            execution, runs = pack.execution, Path(pack.execution.results_dir) / "runs"
            store, trainer = Store(runs), Trainer(execution, runs, device(execution.device))
            made_by = {**record.environment(trainer.device), "compile": execution.compile}
            for plan in claimed(pack, runs, report):
                checkpoint = Checkpoint(
                    runs, plan.configs, execution.checkpoint_minutes, made_by, report.note
                )
                with report.on(plan):
                    report.obey()
                    if not store.holds(plan.addresses, {config.cell for config in plan.configs}):
                        with mirror(execution, plan.configs, report.note) as mirrored:
                            trained = trainer.train(
                                plan.configs,
                                report.progress(plan),
                                report.rows(mirrored),
                                checkpoint,
                            )
                            mirrored.summaries = record.summaries(trained)
                        report.ended(trained, mirrored)
                        made = record.provenance(
                            execution, trainer.device, checkpoint.elapsed, mirrored.status,
                            checkpoint.resumed,
                        )  # fmt: skip
                        store.put_all(record.deliveries(trained, made))
                    checkpoint.remove()
        except Stopped:
            pass
        except Exception:
            report.status.error = traceback.format_exc()
        report.write()
        if report.orphan:
            os._exit(1)  # nobody would give this process work or end it
    return report.counts()


def claimed(pack: Pack, runs: Path, report: "Report") -> Iterator[StackPlan]:
    """The stacks of a pack, each while nobody else trains it; before the deadline.

    Those that another command is training come last: when it is done with them they are in the
    store, and if it died they are still to be trained.
    """
    waiting, passed = deque(pack.stacks), 0
    deadline = pack.execution.deadline
    with Claims(runs) as claims:
        while waiting and (deadline is None or time.time() <= deadline):
            plan = waiting.popleft()
            if claims.take(plan.name):
                try:
                    yield plan
                finally:
                    claims.give_back(plan.name)
                passed = 0
                continue
            waiting.append(plan)
            passed += 1
            if passed >= len(waiting):  # all that is left is somebody else's now
                report.waits()
                time.sleep(LOOK_EVERY)


def mirror(execution: Execution, configs: list[Config], say: Callable[[str], None]) -> Mirror:
    """The W&B mirror of a stack, not yet started; `say` is told of trouble."""
    first, commit = configs[0], git_state()["commit"]
    about = {"study": execution.study, "scale": execution.scale, "command": execution.command,
             "git_commit": commit}  # fmt: skip
    tags = [execution.study, execution.scale, first.data.name, first.model.name, first.norm.name,
            commit[:7]]  # fmt: skip
    where = folder(execution.results_dir)
    return Mirror(execution.tracker, where, execution.study or "ad-hoc", tags, configs, about, say)


@contextlib.contextmanager
def _signals(report: "Report", own_process: bool) -> Iterator[None]:
    """In a worker of its own Ctrl-C is the planner's to handle, and ENDING stops the work.

    When the work has stopped, whoever handled that signal before gets it: submitit then queues the
    job again.
    """
    if not own_process or threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(signum: int, frame: FrameType | None) -> None:
        report.signal = signum

    before = {number: signal.signal(number, stop) for number in ENDING}
    before[signal.SIGINT] = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if callable(before.get(report.signal)):
        os.kill(os.getpid(), report.signal)


class Report:
    """What a worker says of itself while it works, and where it hears that it is to stop."""

    def __init__(self, pack: Pack, parent: int | None) -> None:
        """`parent` is the process that this one must not outlive, if it is one of its own."""
        self.pack, self.parent, self.orphan = pack, parent, False
        self.signal: int | None = None  # that asked this process to end
        self.failures = Failures(Path(pack.execution.results_dir) / "runs")
        self.status = Status(total_seconds=sum(plan.seconds for plan in pack.stacks))
        self.looked = 0.0
        self.write()

    @contextlib.contextmanager
    def on(self, plan: StackPlan) -> Iterator[None]:
        """Around the work on a stack: however it ends, the stack has one state after it."""
        status = self.status
        own = status.stacks[plan.name] = StackStatus(state=State.RUNNING)
        status.current, behind = plan.label, status.done_seconds
        try:
            yield
            own.state = State.DONE
            self.failures.forget(plan)
        except Exception as error:
            own.state, own.error = State.FAILED, explained(error)
            if not isinstance(error, Unwritable):  # the disk failed, not the stack
                self.failures.note(plan, own.error, self.pack.execution.command)
            if self.pack.execution.fail_fast:
                stop_file(self.pack.folder).touch()
        except BaseException:
            own.state = State.STOPPED
            raise
        status.done_seconds = behind + plan.seconds
        self.write()

    def progress(self, plan: StackPlan) -> Callable[[float], None]:
        """What a stack's trainer tells the fraction done to, before each step."""
        behind = self.status.done_seconds

        def on_step(fraction: float) -> None:
            now = time.monotonic()
            if now - self.looked >= LOOK_EVERY:
                self.looked = now
                self.status.started = self.status.started or time.time()
                self.status.done_seconds = behind + fraction * plan.seconds
                self.write()
                self.obey()
            elif self.signal is not None:
                raise Stopped

        return on_step

    def waits(self) -> None:
        """Nothing to do while another command trains what is left."""
        self.status.current, self.status.metric = "another command trains what is left", ""
        self.write()
        self.obey()

    def rows(self, mirrored: Mirror) -> Callable[[list[Config], list[dict[str, Any]]], None]:
        """What a trainer tells each evaluation to: the mirror, and the progress bar."""

        def told(configs: list[Config], rows: list[dict[str, Any]]) -> None:
            mirrored.log(configs, rows)
            self.measured(rows)

        return told

    def ended(self, trained: Trained, mirrored: Mirror) -> None:
        """A stack has trained: what became of its mirror, and what went otherwise than planned."""
        self.status.tracker = mirrored.status
        for how in trained.how:
            self.note(how.get("note", ""))

    def measured(self, rows: list[dict[str, Any]]) -> None:
        """An evaluation, for the progress bar."""
        name = "test_psnr" if "test_psnr" in rows[0] else "test_error"
        mean = sum(row[name] for row in rows) / len(rows)
        self.status.metric = (
            f"PSNR {mean:.2f} dB" if name == "test_psnr" else f"test error {100 * mean:.1f} %"
        )

    def note(self, text: str) -> None:
        """What went otherwise than planned, for the person who waits; each text once."""
        if text and text not in self.status.notes:
            self.status.notes.append(text)

    def obey(self) -> None:
        """Stop if that is wanted, or nobody is left who wants anything."""
        self.orphan = self.parent is not None and os.getppid() != self.parent
        if self.orphan or self.signal is not None or stop_file(self.pack.folder).exists():
            raise Stopped

    def write(self) -> None:
        """Replace the status file; on a full disk the old one stays, which costs no result."""
        with contextlib.suppress(OSError):
            self.status.write(self.pack.folder, self.pack.index)

    def counts(self) -> dict[str, int]:
        """Stacks by state."""
        return dict(Counter(s.state.value for s in self.status.stacks.values()))


def explained(error: Exception) -> str:
    """A mistake of the person's as its message, anything else with its traceback."""
    if isinstance(error, UserError | TooFewValues):
        return str(error)
    return "".join(traceback.format_exception(error))
