"""A whole study against the same grid run by plain scripts, with a process for each run or for all.

The rule, written before the first measurement: the study is `batch_size` at `quick`. The baseline
is `bnstudy.bench.plain`, as many processes at a time as there are cores. Of its grid SAMPLE runs
are timed: strata are model x batch size, each gets its share of the sample in proportion to its
runs (at least one), drawn with seed 0; a stratum's time is its number of runs times the mean of its
sample. The fair rival pays its start once: the same script, one process for each core, trains one
run after the other; its time is the start plus the strata's runs times the mean of the sample as
timed inside. The study itself runs whole, with W&B offline as by default, into an empty folder:
once with an empty compiler cache (cold), once more (warm).
"""

import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from bnstudy.bench import machine, write

STUDY = ("batch_size", "scale=quick")
SAMPLE = 30
LIMITS = {"cold": 4.0, "warm": 8.0}


def grid() -> list[Any]:
    """All runs of the study."""
    from bnstudy.config.compose import hydra_session

    with hydra_session() as composer:
        request = composer.request([*STUDY[1:]], study=composer.study(STUDY[0]))
    return [c.model_copy(update={"seed": s}) for c in request.cells for s in request.seeds]


def strata(runs: list[Any]) -> dict[tuple[str, int], list[Any]]:
    """Runs by model and batch size."""
    found: dict[tuple[str, int], list[Any]] = {}
    for config in runs:
        found.setdefault((config.model.name, config.train.batch_size), []).append(config)
    return found


def draw(groups: dict[tuple[str, int], list[Any]]) -> list[tuple[tuple[str, int], Any]]:
    """The sample: (stratum, run)."""
    stream, whole = random.Random(0), sum(map(len, groups.values()))
    chosen = []
    for key, runs in groups.items():
        count = max(1, round(SAMPLE * len(runs) / whole))
        chosen += [(key, run) for run in stream.sample(runs, min(count, len(runs)))]
    return chosen


def plain_seconds(sample: list[tuple[Any, Any]], say: Callable[[str], None]) -> list[float]:
    """Wall seconds of each run's own process, as many at a time as there are cores."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}

    def one(item: tuple[Any, Any]) -> float:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "config.json"
            path.write_text(item[1].model_dump_json())
            begin = time.perf_counter()
            subprocess.run(
                [sys.executable, "-m", "bnstudy.bench.plain", str(path)],
                check=True, capture_output=True, env=environment,
            )  # fmt: skip
            seconds = time.perf_counter() - begin
        say(f"plain {item[0][0]} B={item[0][1]} {item[1].norm.name}: {seconds:.1f} s")
        return seconds

    with ThreadPoolExecutor(machine()["cores"]) as pool:
        return list(pool.map(one, sample))


def scripted_seconds(
    sample: list[tuple[Any, Any]], say: Callable[[str], None]
) -> tuple[list[float], float]:
    """(seconds of each run inside a script that trains the sample, the script's own start)."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    cores = machine()["cores"]
    parts = [list(range(i, len(sample), cores)) for i in range(cores)]

    def script(part: list[int], folder: Path) -> tuple[list[float], float]:
        paths = [folder / f"{i}.json" for i in part]
        for path, i in zip(paths, part, strict=True):
            path.write_text(sample[i][1].model_dump_json())
        begin = time.perf_counter()
        done = subprocess.run(
            [sys.executable, "-m", "bnstudy.bench.plain", *map(str, paths)],
            check=True, capture_output=True, text=True, env=environment,
        )  # fmt: skip
        wall = time.perf_counter() - begin
        inside = [float(line.split()[0]) for line in done.stdout.splitlines()]
        return inside, wall - sum(inside)

    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(cores) as pool:
        found = list(pool.map(lambda part: script(part, Path(folder)), parts))
    seconds = [0.0] * len(sample)
    for part, (inside, _) in zip(parts, found, strict=True):
        for i, t in zip(part, inside, strict=True):
            seconds[i] = t
    start = max(start for _, start in found)
    say(f"one script: starts in {start:.1f} s, trains the sample in {sum(seconds):.0f} s")
    return seconds, start


def study_seconds(cache: Path) -> float:
    """Wall seconds of the study's command."""
    with tempfile.TemporaryDirectory() as folder:
        begin = time.perf_counter()
        subprocess.run(
            [sys.executable, "-m", "bnstudy", "study", *STUDY, f"results_dir={folder}"],
            check=True, capture_output=True,
            env={**os.environ, "TORCHINDUCTOR_CACHE_DIR": str(cache)},
        )  # fmt: skip
        return time.perf_counter() - begin


def extrapolated(
    groups: dict[Any, list[Any]], sample: list[tuple[Any, Any]], seconds: list[float], cores: int
) -> list[float]:
    """[estimate, low, high] of the whole grid's wall seconds; 95 % by bootstrap within strata."""
    by = {k: [t for (key, _), t in zip(sample, seconds, strict=True) if key == k] for k in groups}
    rng = np.random.default_rng(0)

    def whole(pick: Callable[[list[float]], float]) -> float:
        return sum(len(groups[k]) * pick(times) for k, times in by.items()) / cores

    draws = [whole(lambda t: float(rng.choice(t, len(t)).mean())) for _ in range(2000)]
    return [whole(lambda t: float(np.mean(t))), *np.quantile(draws, [0.025, 0.975]).tolist()]


def figure(rows: dict[str, list[float]], axes: Any) -> None:
    """Wall minutes of each way."""
    from bnstudy.figures import hue

    ax = np.ravel(axes)[0]
    for i, values in enumerate(rows.values()):
        mid, low, high = (v / 60 for v in values)
        ax.errorbar(
            mid, i, xerr=[[mid - low], [high - mid]], fmt="o", color=hue(0).color, capsize=2
        )
        ax.annotate(f"{mid:.1f} min", (high, i), (6, 0), textcoords="offset points", va="center",
                    fontsize=7)  # fmt: skip
    ax.set_yticks(range(len(rows)), list(rows))
    ax.set_xscale("log")
    ax.margins(x=0.25)
    ax.set_xlabel("wall time of the whole grid (minutes)")
    ax.set_title(f"study {STUDY[0]}, quick: {machine()['cores']} cores")


def run(folder: Path, rounds: int, command: str, say: Callable[[str], None]) -> list[str]:
    """Measure and write sweep.json, sweep.csv and the figure; `rounds` is not used."""
    import pandas as pd

    runs = grid()
    groups = strata(runs)
    sample = draw(groups)
    times = {}
    with tempfile.TemporaryDirectory() as cache:
        for name in ("cold", "warm"):
            times[name] = study_seconds(Path(cache))
            say(f"the study, {name}: {times[name]:.0f} s")
    seconds = plain_seconds(sample, say)
    plain = extrapolated(groups, sample, seconds, machine()["cores"])
    inside, start = scripted_seconds(sample, say)
    whole = extrapolated(groups, sample, inside, machine()["cores"])
    script = [v + start for v in whole]
    ratios = {name: [v / t for v in plain] for name, t in times.items()}
    fair = {name: [v / t for v in script] for name, t in times.items()}
    table = pd.DataFrame(
        {"model": key[0], "batch": key[1], "norm": config.norm.name, "seed": config.seed,
         "plain_seconds": t, "script_seconds": own}
        for (key, config), t, own in zip(sample, seconds, inside, strict=True)
    )  # fmt: skip
    content = {
        "command": command, "machine": machine(), "rule": __doc__, "runs": len(runs),
        "study_seconds": times, "plain_seconds": plain, "times_as_fast": ratios,
        "script_seconds": script, "times_as_fast_as_script": fair,
        "limits": LIMITS,
    }  # fmt: skip
    bars = {
        "one process a run": plain,
        "one script for all": script,
        **{f"study, {k}": [t] * 3 for k, t in times.items()},
    }
    write(folder, "sweep", content, table, figure, bars, (1, 1))
    lines = [f"one process a run: {plain[0] / 60:.1f} min [{plain[1] / 60:.1f}, "
             f"{plain[2] / 60:.1f}], from {len(sample)} of {len(runs)} runs"]  # fmt: skip
    for name, ratio in ratios.items():
        reached = "reached" if ratio[1] >= LIMITS[name] else "missed"
        lines.append(
            f"the study, {name}: {times[name]:.0f} s, {ratio[0]:.1f} times as fast "
            f"[{ratio[1]:.1f}, {ratio[2]:.1f}]; at least {LIMITS[name]:.0f}: {reached}"
        )
        mid, low, high = fair[name]
        lines.append(
            f"             {mid:.1f} times as fast as one script for all [{low:.1f}, {high:.1f}], "
            f"which would take {script[0] / 60:.1f} min"
        )
    return lines
