"""Which runs of W&B are whole, which of them a server has, and pushing the others."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

OPEN = "bnstudy.open"  # a run's file that its process holds a lock on while it writes
TOGETHER = 20  # runs that one call of W&B pushes
START, EACH = 60.0, 30.0  # seconds that it may take, and for each run

_held: dict[Path, int] = {}


def hold(run: Path) -> None:
    """This process writes this run's folder; the system forgets that when the process ends."""
    if fcntl is None:
        return
    file = os.open(run / OPEN, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:  # no locks here: `waiting` takes the run for whole
        os.close(file)
    else:
        _held[run] = file


def release(run: Path, arrived: bool) -> None:
    """Nothing more is written to a run; with `arrived` the server has all of it."""
    if (file := _held.pop(run, None)) is not None:
        os.close(file)
        (run / OPEN).unlink(missing_ok=True)
    if arrived:  # as `wandb sync` marks what it has pushed
        for log in run.glob("*.wandb"):
            marker(log).touch()


def marker(log: Path) -> Path:
    """The file that says of a transaction log that the server has it: W&B's own."""
    return log.with_suffix(".wandb.synced")


def waiting(folder: Path) -> tuple[list[Path], int]:
    """Logs of whole runs that no server has, oldest first, and how many runs are being written."""
    found = [log for log in sorted(_logs(folder)) if not marker(log).exists()]
    whole = [log for log in found if not _writing(log.parent)]
    return whole, len(found) - len(whole)


def _logs(folder: Path) -> Iterator[Path]:
    for kind in ("run-*", "offline-run-*"):
        yield from (folder / "wandb").glob(f"{kind}/*.wandb")


def _writing(run: Path) -> bool:
    """Whether a process writes a run's folder now."""
    if fcntl is None or not (run / OPEN).is_file():
        return False
    with (run / OPEN).open("r+") as file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return True
    return False


def push(logs: Sequence[Path], told: Callable[[int], None]) -> str:
    """Push runs by W&B's own command; why some have not arrived, or an empty text.

    Args:
        logs: of `waiting`.
        told: how many have arrived, after each of several calls.
    """
    for start in range(0, len(logs), TOGETHER):
        part = logs[start : start + TOGETHER]
        command = [sys.executable, "-m", "wandb", "sync", "--include-online"]
        seconds = START + EACH * len(part)
        try:
            done = subprocess.run(
                [*command, *(str(log.parent) for log in part)], stdin=subprocess.DEVNULL,
                capture_output=True, text=True, check=False, timeout=seconds,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            return f"W&B has not finished within {seconds:g} s"
        arrived = sum(marker(log).exists() for log in logs[: start + TOGETHER])
        told(arrived)
        if arrived < start + len(part):
            said = [line for line in (done.stdout + done.stderr).splitlines() if line.strip()]
            return said[-1] if said else f"`wandb sync` ended with exit code {done.returncode}"
    return ""
