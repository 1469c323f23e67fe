"""What people wait for around the training (help, planning, tables), and what grows with it."""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

from bnstudy.bench import growth, machine, median_interval, write

CELLS, SEEDS = 10_000, 5
ASKED = 20  # cells of one study among them
LIMITS = {"help": 0.5, "plan": 15.0, "study": 0.5, "table": 25.0}
LIMIT_GIB = 2.0
LIMIT_MIB = 20.0  # that a worker grows by after its first pack


def filled(root: Path, cells: int) -> list[Any]:
    """A store with that many cells of SEEDS runs each; the cells' configs."""
    from bnstudy.config import RESULTS_VERSION, Config, OptimizerConfig
    from bnstudy.store import Record, Store

    store = Store(root)
    configs = [Config(optimizer=OptimizerConfig(lr=0.001 * (i + 1))) for i in range(cells)]
    for cell in configs:
        records: list[Record] = []
        history = []
        for seed in range(SEEDS):
            own = cell.model_copy(update={"seed": seed})
            summary = {f"metric_{k}": 0.1 * k + seed for k in range(40)}
            records.append(
                {"address": own.address, "cell": own.cell, "results_version": RESULTS_VERSION,
                 "seed": seed, "config": own.canonical(), "summary": summary, "layers": [],
                 "provenance": {"torch": "0", "device": "cpu", "wall_seconds": 1.0}, "stack": {}}
            )  # fmt: skip
            history += [{"seed": seed, "step": s, "test_error": 0.5} for s in range(5)]
        store.put(records, history)
    return configs


def unsynced(handle: int) -> None:
    """In place of 120,000 waits for the disk of some ms each: reading is measured, not writing."""


def planning(root: Path, configs: list[Any]) -> Callable[[], None]:
    """Planning a study of which everything is done, from configs to what is missing."""
    from bnstudy.store import Store
    from bnstudy.sweep.plan import make_plan

    def plan() -> None:
        held = Store(root).held([config.cell for config in configs])
        found = make_plan(configs, range(SEEDS), held, lambda config, count: 0.0)
        assert not found.stacks
        assert found.held == len(configs) * SEEDS

    return plan


def study_table(root: Path, configs: list[Any]) -> Callable[[], None]:
    """The table of one study in a store that holds many."""
    from bnstudy.store import Store
    from bnstudy.sweep.plan import addresses

    asked = [a for cell in configs[:ASKED] for a in addresses(cell, range(SEEDS))]
    cells = [cell.cell for cell in configs[:ASKED]]

    def read() -> None:
        assert len(Store(root).table(asked, cells)) == ASKED * SEEDS

    return read


def table_process(root: Path) -> tuple[float, float]:
    """Seconds and peak GiB of a process that reads the whole table."""
    code = (
        "import sys, time, resource; from bnstudy.store import Store; begin = time.perf_counter();"
        f"n = len(Store(sys.argv[1]).table()); assert n == {CELLS * SEEDS};"
        "print(time.perf_counter() - begin,"
        " resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(root)], check=True, capture_output=True, text=True
    )
    seconds, gib = map(float, done.stdout.split())
    return seconds, gib


def ask_for_help() -> None:
    """`bnstudy --help` in a process of its own."""
    words = [sys.executable, "-m", "bnstudy", "--help"]
    subprocess.run(words, check=True, capture_output=True)


def timed(call: Callable[[], Any]) -> float:
    """Seconds of one call."""
    begin = time.perf_counter()
    call()
    return time.perf_counter() - begin


def figure(rows: dict[str, list[float]], mib: list[float], axes: Any) -> None:
    """Seconds beside the limits; a worker's memory."""
    from bnstudy.figures import hue

    ax, memory = np.ravel(axes)
    for i, (name, (mid, low, high)) in enumerate(rows.items()):
        ax.barh(i, mid, xerr=[[mid - low], [high - mid]], color=hue(0).color, capsize=2)
        ax.plot([LIMITS[name]] * 2, [i - 0.4, i + 0.4], color=hue(1).color)
    ax.set_yticks(range(len(rows)), [LABELS[name] for name in rows])
    ax.set_xlabel("seconds (line: at most)")
    ax.set_title("what people wait for")
    memory.plot(growth.STACKS * np.arange(1, len(mib) + 1), mib, "o-", color=hue(0).color)
    memory.set_ylim(0, 1.1 * max(mib))
    memory.set_xlabel("stacks trained by one worker")
    memory.set_ylabel("resident memory (MiB)")
    memory.set_title("a worker's memory")


LABELS = {
    "help": "bnstudy --help",
    "plan": f"planning {CELLS:,} finished cells",
    "study": f"table of {ASKED * SEEDS:,} records among them",
    "table": f"table of all {CELLS * SEEDS:,} records",
}


def run(folder: Path, rounds: int, command: str, say: Callable[[str], None]) -> list[str]:
    """Measure and write report.json, report.csv and the figure."""
    import pandas as pd

    rounds = max(6, rounds // 4)
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch) / "runs"
        with mock.patch.object(os, "fsync", unsynced):
            configs = filled(root, CELLS)
        say("the store is filled")
        mib = growth.worker_memory(Path(scratch) / "trained")
        per_run = growth.bytes_per_run(Path(scratch) / "trained")
        say("a worker has trained")
        plan, study = planning(root, configs), study_table(root, configs)
        seconds: dict[str, list[float]] = {name: [] for name in LIMITS}
        gib = []
        for i in range(rounds):  # one after the other in each round
            seconds["help"].append(timed(ask_for_help))
            seconds["plan"].append(timed(plan))
            seconds["study"].append(timed(study))
            spent, peak = table_process(root)
            seconds["table"].append(spent)
            gib.append(peak)
            say(f"round {i + 1} of {rounds}")
    found = {name: median_interval(v) for name, v in seconds.items()}
    content = {"command": command, "machine": machine(), "rounds": rounds, "seconds": found,
               "table_gib": max(gib), "worker_mib": mib, "store_bytes_per_run": per_run,
               "limits": {**LIMITS, "table_gib": LIMIT_GIB, "worker_mib": LIMIT_MIB}}  # fmt: skip
    write(folder, "report", content, pd.DataFrame(seconds),
          lambda rows, axes: figure(rows, mib, axes), found, (1, 2))  # fmt: skip
    lines = [
        f"{LABELS[name]:<34} {v[0]:.2f} s [{v[1]:.2f}, {v[2]:.2f}]; at most {LIMITS[name]}: "
        f"{'reached' if v[2] <= LIMITS[name] else 'missed'}"
        for name, v in found.items()
    ]
    grown = mib[-1] - mib[0]
    return [
        *lines,
        f"the table's process: {max(gib):.2f} GiB at most; under {LIMIT_GIB:g}: "
        f"{'reached' if max(gib) < LIMIT_GIB else 'missed'}",
        f"a worker: {mib[0]:.0f} MiB after {growth.STACKS} stacks, {grown:+.1f} after "
        f"{growth.PARTS * growth.STACKS}; under {LIMIT_MIB:g}: "
        f"{'reached' if grown < LIMIT_MIB else 'missed'}",
        f"the store: {per_run / 1000:.0f} kB per run",
    ]
