"""Progress of a launch, read from its workers' status files: a live bar, or lines on a pipe."""

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

from bnstudy.errors import count
from bnstudy.sweep.protocol import Status

LINE_EVERY = 15  # seconds between lines where there is no terminal


def eta(statuses: list[Status], now: float) -> tuple[float, float | None]:
    """(fraction done, seconds left or None while nothing can be said).

    The pace is measured: estimated seconds done per second of a worker, since its first step. What
    is left is what the worker with the most left has left.
    """
    begun = [s for s in statuses if s.started]
    total = sum(s.total_seconds for s in statuses)
    if not begun or total <= 0:
        return 0.0, None
    elapsed = sum(now - s.started for s in begun)
    pace = sum(s.done_seconds for s in begun) / max(elapsed, 1e-9)
    fraction = min(1.0, sum(s.done_seconds for s in statuses) / total)
    if elapsed < 5 or pace <= 0:
        return fraction, None
    return fraction, max(s.total_seconds - s.done_seconds for s in statuses) / pace


def clock(seconds: float | None) -> str:
    """Seconds as 3:07, or ?."""
    if seconds is None:
        return "?"
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"


def remaining(fraction: float, left: float | None) -> str:
    """What is left in words; once every estimated second is used up, training is over."""
    used_up = fraction > 0.99 and left is not None and left < 2
    return "evaluating" if used_up else f"ETA {clock(left)}"


@contextmanager
def progress(folder: Path) -> Iterator[None]:
    """Show the progress that the status files of a folder tell, until the block ends."""
    console = Console()
    finished = threading.Event()
    watch = threading.Thread(
        target=_bar if console.is_terminal else _lines, args=(folder, finished, console)
    )
    watch.start()
    try:
        yield
    finally:
        finished.set()
        watch.join()


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
            statuses = Status.read(folder)
            fraction, left = eta(statuses, time.time())
            now = " | ".join(f"{s.current} {s.metric}" for s in statuses if s.current)
            bar.update(task, completed=fraction, left=remaining(fraction, left), description=now)


def _lines(folder: Path, finished: threading.Event, console: Console) -> None:
    begin = time.time()
    while not finished.wait(LINE_EVERY):
        statuses = Status.read(folder)
        fraction, left = eta(statuses, time.time())
        done = sum(s.done for s in statuses)
        print(
            f"{clock(time.time() - begin)}  {100 * fraction:3.0f} %  "
            f"{count(done, 'stack')} done, {remaining(fraction, left)}",
            flush=True,
            file=sys.stdout,
        )
