"""How far a launch is, from its workers' status files."""

from collections.abc import Sequence

from bnstudy.sweep.protocol import Status


def eta(statuses: Sequence[Status], now: float) -> tuple[float, float | None]:
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
