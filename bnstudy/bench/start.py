"""From Enter to the first step: what a command costs beside its training.

The rule, written before the first measurement: every row is a command in a process of its own,
with one thread for each process; in each round all short rows are timed once, in a drawn order,
beside T, the time of `python -c "import torch"`. Limits are in medians of T, or in seconds.

    cell   `train model=mlp scale=smoke`: five networks, a second of training; W&B offline. 2.5 T
    again  the same study a second time: nothing is missing, nothing is drawn. 1 s
    mnist  two batch sizes x two seeds of an MLP on the 55,000 images of MNIST, one epoch, W&B
           offline; only where BNSTUDY_DATA has the files. T + 8 s
    grid   `study batch_size scale=quick`, 400 networks: wall time minus the training, which is the
           sum of the stacks' seconds over the workers. 4 T
    W&B    its part of that wall time: offline against disabled, in turn. 5 %
"""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from bnstudy.bench import machine, median_interval, write

CELL = ("train", "model=mlp", "scale=smoke")
STUDY = ("study", "batch_size", "scale=smoke", "tracker.mode=disabled")
GRID = ("study", "batch_size", "scale=quick")
MNIST = ("train", "-m", "data=mnist", "data.train_size=null", "model=mlp",
         "model.hidden=[64,128,64]", "optimizer=adam", "optimizer.lr=0.001",
         "optimizer.lr_rule=none", "train.batch_size=256,128", "seeds=2", "train.epochs=1",
         "save_weights=false")  # fmt: skip
GRID_ROUNDS = 3  # minutes each
LIMITS = {
    "cell": (2.5, 0.0, "2.5 T"),
    "again": (0.0, 1.0, "1 s"),
    "mnist": (1.0, 8.0, "T + 8 s"),
    "grid": (4.0, 0.0, "4 T"),
}  # times T, plus seconds


def timed(*words: str) -> float:
    """Wall seconds of a Python process."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    begin = time.perf_counter()
    subprocess.run([sys.executable, *words], check=True, capture_output=True, env=environment)
    return time.perf_counter() - begin


def command(words: tuple[str, ...], results: Path | str, *more: str) -> float:
    """Wall seconds of a command of ours."""
    return timed("-m", "bnstudy", *words, f"results_dir={results}", *more)


def fresh(words: tuple[str, ...], *more: str) -> float:
    """The same into an empty folder."""
    with tempfile.TemporaryDirectory() as folder:
        return command(words, folder, *more)


def grid_seconds(mode: str) -> tuple[float, float]:
    """(wall seconds of the 400-network grid, seconds of it that are training)."""
    from bnstudy.store import Store

    with tempfile.TemporaryDirectory() as folder:
        wall = command(GRID, folder, f"tracker.mode={mode}")
        table = Store(Path(folder) / "runs").table()
        return wall, float(table["wall_seconds"].sum()) / machine()["cores"]


def has_mnist() -> bool:
    """Whether the real files are there."""
    from bnstudy import data
    from bnstudy.config import DataConfig
    from bnstudy.errors import UserError

    try:
        data.resolve(DataConfig(name="mnist"))
    except UserError:
        return False
    return True


def figure(rows: dict[str, tuple[list[float], float]], axes: Any) -> None:
    """Seconds as dots with intervals, each beside its limit."""
    from bnstudy.figures import hue

    ax = np.ravel(axes)[0]
    for i, ((mid, low, high), limit) in enumerate(rows.values()):
        ax.errorbar(
            mid, i, xerr=[[mid - low], [high - mid]], fmt="o", color=hue(0).color, capsize=2
        )
        if limit:
            ax.plot([limit] * 2, [i - 0.3, i + 0.3], color=hue(1).color)
    ax.set_yticks(range(len(rows)), list(rows))
    ax.set_xlim(left=0)
    ax.set_xlabel("seconds (line: limit)")
    ax.set_title("from Enter to the first step")


def run(folder: Path, rounds: int, command_line: str, say: Callable[[str], None]) -> list[str]:
    """Measure and write start.json, start.csv and the figure."""
    import pandas as pd

    rounds = max(6, rounds // 2)
    stream = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as kept:
        ways: dict[str, Callable[[], float]] = {
            "torch": lambda: timed("-c", "import torch"),
            "cell": lambda: fresh(CELL),
            "again": lambda: command(STUDY, kept),
        }
        if has_mnist():
            ways["mnist"] = lambda: fresh(MNIST)
        else:
            say("mnist: its files are not in BNSTUDY_DATA: no such row")
        for way in ways.values():  # untimed: caches of the disk, the study that is there again
            way()
        seconds: dict[str, list[float]] = {name: [] for name in ways}
        for i in range(rounds):
            for name in stream.permutation(list(ways)):
                seconds[name].append(ways[name]())
            say(f"round {i + 1} of {rounds}: "
                + ", ".join(f"{n} {v[-1]:.1f} s" for n, v in seconds.items()))  # fmt: skip
    torch = np.median(seconds["torch"])
    walls: dict[str, list[float]] = {"offline": [], "disabled": []}
    seconds["grid"] = []
    for i in range(GRID_ROUNDS):
        for mode in stream.permutation(list(walls)):
            wall, training = grid_seconds(mode)
            walls[mode].append(wall)
            if mode == "offline":
                seconds["grid"].append(wall - training)
            say(f"grid {i + 1} of {GRID_ROUNDS}, W&B {mode}: {wall:.1f} s, {training:.1f} training")
    found = {name: median_interval(values) for name, values in seconds.items()}
    share = float(np.median(1 - np.array(walls["disabled"]) / np.array(walls["offline"])))
    limits = {name: times * torch + more for name, (times, more, _) in LIMITS.items()}
    content = {
        "command": command_line, "machine": machine(), "rounds": rounds, "seconds": found,
        "grid_rounds": GRID_ROUNDS, "grid_walls": walls, "wandb_share": share, "limits": limits,
    }  # fmt: skip
    table = pd.DataFrame({name: pd.Series(values) for name, values in seconds.items()})
    drawn = {name: (values, limits.get(name, 0.0)) for name, values in found.items()}
    write(folder, "start", content, table, figure, drawn, (1, 1))
    lines = []
    for name, (mid, low, high) in found.items():
        text = f"{name:<8} {mid:.2f} s [{low:.2f}, {high:.2f}], {mid / torch:.1f} T"
        if name in limits:
            reached = "reached" if mid <= limits[name] else "MISSED"
            text += f"; at most {LIMITS[name][2]} = {limits[name]:.1f} s: {reached}"
        lines.append(text)
    said = "reached" if share < 0.05 else "MISSED"
    return [*lines, f"W&B      {100 * share:.1f} % of the grid's wall time; under 5 %: {said}"]
