"""Benchmarks: separate from tests, paired and interleaved, medians with intervals.

Each compares ways of doing the same thing in one process: in every round each way is timed once,
right after the others, so that what else the machine does hits all of them alike. Ratios are taken
within a round; the interval of their median is exact (order statistics).
"""

import platform
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np


def interleaved(
    ways: dict[str, Callable[[], Any]], rounds: int, least: float = 2e-3, warmup: int = 3
) -> dict[str, np.ndarray]:
    """Seconds per call of each way, one value a round.

    Args:
        ways: name -> what is timed.
        rounds: how often each is timed; the order is redrawn (seeded) for each, and one untimed
            call comes first: what a way finds in the caches must not be its predecessor's doing.
        least: seconds that one timing lasts at least: short calls are repeated within it.
        warmup: calls before the first round.
    """
    repeats = {}
    for name, call in ways.items():
        for _ in range(warmup):
            call()
        begin = time.perf_counter()
        call()
        repeats[name] = max(1, round(least / max(time.perf_counter() - begin, 1e-9)))
    names = list(ways)
    seconds = {name: np.empty(rounds) for name in names}
    order = np.random.default_rng(0)
    for i in range(rounds):
        for name in order.permutation(names):
            call, n = ways[name], repeats[name]
            call()
            begin = time.perf_counter()
            for _ in range(n):
                call()
            seconds[name][i] = (time.perf_counter() - begin) / n
    return seconds


def median_interval(values: Sequence[float] | np.ndarray, level: float = 0.95) -> list[float]:
    """[median, low, high]: the order-statistics interval of a median, no assumption on shape.

    Needs 6 values for 95 %; with fewer, low and high are the extremes.
    """
    from scipy import stats

    ordered = np.sort(np.asarray(values, dtype=float))
    n = len(ordered)
    below = int(stats.binom.ppf((1 - level) / 2, n, 0.5))
    # P(fewer than `below` values under the median) <= (1 - level) / 2
    low = max(below - 1, 0)
    return [float(np.median(ordered)), float(ordered[low]), float(ordered[n - 1 - low])]


def write(
    folder: Path, stem: str, content: dict[str, Any], table: Any, figure: Callable[..., None],
    rows: Any, panels: tuple[int, int],
) -> None:  # fmt: skip
    """stem.json, stem.csv and stem.{svg,pdf,png}; `figure(rows, axes)` draws."""
    import matplotlib
    from matplotlib.figure import Figure

    from bnstudy import figures
    from bnstudy.atomic import write_atomically, write_json

    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / f"{stem}.json", content)
    write_atomically(folder / f"{stem}.csv", table.to_csv(index=False))
    with matplotlib.rc_context(figures.rc()):
        # a measured table is no study: its figures are axes with one legend above them
        drawing = Figure((3.4 * panels[1], 2.6 * panels[0] + 0.5), layout="constrained")
        figure(rows, drawing.subplots(*panels, squeeze=False))
        named = [ax.get_legend_handles_labels() for ax in drawing.axes]
        entries = {text: h for own in named for h, text in zip(*own, strict=True)}
        if entries:
            columns = min(len(entries), max(2, round(3.4 * panels[1] / 1.3)))
            drawing.legend(entries.values(), entries.keys(), loc="outside upper center",
                           ncols=columns)  # fmt: skip
        figures.save(drawing, folder, stem)


def machine() -> dict[str, Any]:
    """What the numbers were measured on."""
    import os

    import torch

    model = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [x for x in info.read_text().splitlines() if x.startswith("model name")]
        model = names[0].partition(":")[2].strip() if names else model
    gpu = torch.cuda.get_device_name(0) if torch.cuda.is_available() else "none"
    return {
        "cpu": model,
        "cores": len(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else os.cpu_count(),
        "gpu": gpu,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "system": platform.system(),
    }
