"""While workers work: a progress bar, or lines on a pipe, and what Ctrl-C does."""

import os
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

from bnstudy.errors import count
from bnstudy.sweep.progress import clock, eta, remaining
from bnstudy.sweep.protocol import Status, stop_file

FIRST_LINE = 2  # seconds until there is one where there is no terminal
# those of them that the system has
STOPPING = [getattr(signal, n) for n in ("SIGINT", "SIGTERM", "SIGUSR2") if hasattr(signal, n)]
LINE_EVERY = 15  # seconds between the others


class Watch:
    """Shows a launch and lets it be stopped; `signal` is the number of the signal that did."""

    signal: int | None = None

    @contextmanager
    def __call__(self, folder: Path) -> Iterator[None]:
        """Around a launch: its folder of status files, read until the block ends."""
        console = Console()
        finished = threading.Event()
        show = _bar if console.is_terminal else _lines
        watch = threading.Thread(target=show, args=(folder, finished, console))
        with self._stopping(folder):
            watch.start()
            try:
                yield
            finally:
                finished.set()
                watch.join()

    @contextmanager
    def _stopping(self, folder: Path) -> Iterator[None]:
        """The first Ctrl-C, SIGTERM or SIGUSR2 (a cluster's warning) asks the workers to stop
        between two steps; a second Ctrl-C kills."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def stop(number: int, frame: FrameType | None) -> None:
            if self.signal is not None:
                os._exit(128 + number)  # workers stop at their next step: their parent is gone
            self.signal = number
            stop_file(folder).touch()
            how = "; Ctrl-C again kills" if number == signal.SIGINT else ""
            click.echo(f"\nstopping once finished work is written{how}")

        before = {n: signal.signal(n, stop) for n in STOPPING}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def _bar(folder: Path, finished: threading.Event, console: Console) -> None:
    columns = (
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.fields[left]}"),
        TextColumn("{task.description}"),
    )
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("starting workers", total=1.0, left="")
        while not finished.wait(0.5):
            statuses = list(Status.read(folder).values())
            fraction, left = eta(statuses, time.time())
            now = doing(statuses) or "starting workers"
            bar.update(task, completed=fraction, left=remaining(fraction, left), description=now)


def _lines(folder: Path, finished: threading.Event, console: Console) -> None:
    begin = time.time()
    wait = FIRST_LINE
    while not finished.wait(wait):
        wait = LINE_EVERY
        statuses = list(Status.read(folder).values())
        fraction, left = eta(statuses, time.time())
        done = sum(s.done for s in statuses)
        click.echo(
            f"{clock(time.time() - begin)}  {100 * fraction:3.0f} %  "
            f"{count(done, 'stack')} done, {remaining(fraction, left)}  "
            f"{doing(statuses) or 'starting workers'}"
        )


def doing(statuses: Sequence[Status]) -> str:
    """Which stacks are being trained, and what was last measured."""
    return " | ".join(f"{s.current} {s.metric}".strip() for s in statuses if s.current)
