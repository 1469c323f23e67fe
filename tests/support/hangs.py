"""What hangs fails, on a busy machine as on a quiet one."""

import contextlib
import signal
from collections.abc import Iterator

COMPUTING, WAITING = 30, 120  # seconds of the processor; seconds on the wall
TIMERS = (
    (signal.SIGPROF, signal.ITIMER_PROF, COMPUTING),
    (signal.SIGALRM, signal.ITIMER_REAL, WAITING),
)


@contextlib.contextmanager
def in_time() -> Iterator[None]:
    """A block that computes or waits for longer raises AssertionError."""

    def late(signum: int, _: object) -> None:
        what = "waits" if signum == signal.SIGALRM else "computes"
        raise AssertionError(f"it {what} without end")

    before = [signal.signal(number, late) for number, _, _ in TIMERS]
    for _, timer, seconds in TIMERS:
        signal.setitimer(timer, seconds)
    try:
        yield
    finally:
        for (number, timer, _), handler in zip(TIMERS, before, strict=True):
            signal.setitimer(timer, 0)
            signal.signal(number, handler)
