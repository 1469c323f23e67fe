"""Sweeps in processes of their own, to be killed; and the marks that they leave on a store."""

import contextlib
import os
import subprocess
import sys
import time
from pathlib import Path

from bnstudy.store import Store, without_provenance

# 60 stacks of one network each
SIXTY = ["train", "-m", "norm=batch,group", "optimizer.lr=0.05,0.1,0.2", "train.batch_size=8,10",
         "model=mlp", "data.train_size=40", "train.steps=60", "seeds=5", "max_stack=1",
         "compile=never", "tracker.mode=disabled"]  # fmt: skip
STACKS = 60


def start(results: Path, *words: str, stem: str = "log", workers: int = 2) -> subprocess.Popen:
    """A sweep; its output goes to a file, for workers that outlive it would hold a pipe open."""
    results.mkdir(parents=True, exist_ok=True)
    with (results / f"{stem}.txt").open("a") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "bnstudy", *(words or SIXTY), f"workers={workers}",
             f"results_dir={results}"],
            start_new_session=True, stdout=log, stderr=subprocess.STDOUT,
        )  # fmt: skip


def output(results: Path, stem: str = "log") -> str:
    """What sweeps of this name have said so far."""
    return (results / f"{stem}.txt").read_text()


def finish(process: subprocess.Popen, results: Path, stem: str = "log") -> None:
    """Wait for a sweep that ends well."""
    assert process.wait(timeout=1200) == 0, output(results, stem)


def done(results: Path) -> set[Path]:
    """The manifests of complete stacks."""
    return set((results / "runs" / "cells").glob("*/*/manifest.json"))


def workers(parent: int) -> list[int]:
    """Living processes that run a pack: the planner's children, while W&B is off."""
    try:
        children = Path(f"/proc/{parent}/task/{parent}/children").read_text()
    except OSError:
        return []
    return [pid for pid in map(int, children.split()) if alive(pid)]


def alive(pid: int) -> bool:
    """Whether a process runs, or is stopped."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def handles(pid: int, number: int) -> bool:
    """Whether a process has a handler for a signal: a planner, once it watches its workers."""
    (mask,) = [line.split()[1] for line in Path(f"/proc/{pid}/status").read_text().splitlines()
               if line.startswith("SigCgt:")]  # fmt: skip
    return bool(int(mask, 16) >> (number - 1) & 1)


def wait_for(condition, seconds: float = 600) -> None:
    """Until something holds."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "the sweep did not get there in time"
        time.sleep(0.02)


def signalled(pid: int, number: int) -> bool:
    """Whether a process was still alive to get a signal: what has ended only takes it."""
    was = alive(pid)
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)
    return was


def table(results: Path) -> str:
    """What a store holds, without how it was made."""
    return without_provenance(Store(results / "runs").table()).to_csv(index=False)


def clean(results: Path) -> None:
    """Nothing is damaged and nothing half written is left."""
    runs = results / "runs"
    assert not (runs / "damaged").exists()
    assert list((runs / "tmp").glob("*")) == []
