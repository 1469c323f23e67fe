"""While workers work: a progress bar, or lines on a pipe, and what Ctrl-C does."""

import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

from bnstudy.errors import count
from bnstudy.sweep.progress import Sweep, clock, remaining, sweep
from bnstudy.sweep.protocol import State, stop_file

FIRST_LINE = 2  # seconds until there is one where there is no terminal
# those of them that the system has
STOPPING = [getattr(signal, n) for n in ("SIGINT", "SIGTERM", "SIGUSR2") if hasattr(signal, n)]
LINE_EVERY = 15  # seconds between the others


class Watch:
    """Shows a launch and lets it be stopped; `signal` is the number of the signal that did."""

    signal: int | None = None

    @contextmanager
    def __call__(self, folders: Sequence[Path]) -> Iterator[None]:
        """Around a launch: its folders of status files, read until the block ends."""
        console = Console()
        finished = threading.Event()
        show = _bar if console.is_terminal else _lines
        watch = threading.Thread(target=show, args=(folders, finished, console))
        with self._stopping(folders):
            watch.start()
            try:
                yield
            finally:
                finished.set()
                watch.join()

    @contextmanager
    def _stopping(self, folders: Sequence[Path]) -> Iterator[None]:
        """The first Ctrl-C, SIGTERM or SIGUSR2 (a cluster's warning) asks the workers to stop
        between two steps; a second Ctrl-C kills."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def stop(number: int, frame: FrameType | None) -> None:
            if self.signal is not None:
                os._exit(128 + number)  # workers stop at their next step: their parent is gone
            self.signal = number
            for folder in folders:
                stop_file(folder).touch()
            how = "; Ctrl-C again kills" if number == signal.SIGINT else ""
            click.echo(f"\nstopping once finished work is written{how}")

        before = {n: signal.signal(n, stop) for n in STOPPING}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def _bar(folders: Sequence[Path], finished: threading.Event, console: Console) -> None:
    columns = (
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.fields[left]}"),
        TextColumn("{task.description}"),
    )
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("starting workers", total=1.0, left="")
        while not finished.wait(0.5):
            now = sweep(folders)
            left = remaining(now.fraction, now.left)
            bar.update(task, completed=now.fraction, left=left, description=doing(now))


def _lines(folders: Sequence[Path], finished: threading.Event, console: Console) -> None:
    begin = time.time()
    wait = FIRST_LINE
    while not finished.wait(wait):
        wait = LINE_EVERY
        now = sweep(folders)
        click.echo(
            f"{clock(time.time() - begin)}  {100 * now.fraction:3.0f} %  "
            f"{count(now.stacks[State.DONE], 'stack')} done, "
            f"{remaining(now.fraction, now.left)}  {doing(now)}"
        )


def doing(now: Sweep) -> str:
    """Which stacks are being trained, and what was last measured, or what is waited for."""
    otherwise = "workers end" if now.stacks[State.DONE] else "starting workers"
    return " | ".join([*now.doing, *queue(now)]) or otherwise


def queue(now: Sweep) -> list[str]:
    """How many jobs are in the queue of a cluster, for each reason that it gives."""
    reasons = Counter(job.reason for job in now.waiting)
    none = ("None", "")  # not looked at yet
    return [f"{count(n, 'job')} queued{'' if reason in none else f' ({reason})'}"
            for reason, n in reasons.items()]  # fmt: skip
