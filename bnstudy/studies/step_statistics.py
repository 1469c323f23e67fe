"""How statistics per time step evolve, and how many examples are behind them.

Primary claim: with full sequences the running mean of the recurrent term is farther from that of
T_max a quarter into the sequence than at half of it. Written before the first run of the grid.
"""

import numpy as np
import pandas as pd

from bnstudy import figures
from bnstudy.stats import Claim, paired_differences
from bnstudy.studies import CHANCE_HALF, CLASSES, comparable, course, extended, values

SHORTEST = "data.min_length"
SOURCE = "Cooijmans et al. 2017, figure 3a"
PUBLISHED = {
    "what": "published: the statistics converge to a stationary distribution (Cooijmans et al. "
    "2017, figure 3a); no number is given",
}


def arms(table: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Runs with full sequences, and with cut ones."""
    cut = table[SHORTEST].notna() if SHORTEST in table else pd.Series(False, index=table.index)
    found = {"full length": table[~cut], "variable lengths": table[cut]}
    return {name: rows for name, rows in found.items() if len(rows)}


def shape(table: pd.DataFrame) -> tuple[int, int]:
    """Drift of the mean, examples behind a step, test error by statistics."""
    return 1, 3


def figure(table: pd.DataFrame, axes: np.ndarray) -> None:
    """Curves over time steps; bars of errors."""
    drift, behind, errors = np.ravel(axes)
    for ax, name, label in ((drift, "drift", "distance to T_max (s.d.)"),
                            (behind, "behind", "valid examples")):  # fmt: skip
        curves = {arm: course(rows, name) for arm, rows in arms(table).items()}
        figures.series(ax, curves, log2=None, xlabel="time step", ylabel=label)
        ax.legend(fontsize=6.5)
        ax.margins(y=0.25)
    drift.set_title("running mean of the recurrent term")
    behind.set_title("examples behind a step's statistics")
    readings = {"exponential average": "test_error", "PreciseBN": "test_error_precise",
                "shared over time": "test_error_shared",
                "batch statistics": "test_error_batch"}  # fmt: skip
    curves = {}
    for arm, rows in arms(table).items():
        frames = [
            pd.DataFrame({"x": [float(i)], **_interval(rows, column)})
            for i, column in enumerate(readings.values())
        ]
        curves[arm] = pd.concat(frames)
    figures.series(errors, curves, percent=True, log2=None, ylabel="test error (%)")
    for line in errors.get_lines():
        line.set_linestyle("none")
    errors.set_xticks(range(len(readings)), list(readings), rotation=25, ha="right", fontsize=6.5)
    errors.legend(fontsize=6.5)
    errors.margins(y=0.25)
    errors.set_title("digits, pixel by pixel: read with")


def _interval(rows: pd.DataFrame, column: str) -> dict[str, list[float]]:
    from bnstudy import stats

    summary = stats.summarize(extended(rows[["seed", column]], _all=0), "_all", column).iloc[0]
    return {name: [summary[name]] for name in ("mean", "low", "high")}


def claims(table: pd.DataFrame) -> list[Claim]:
    """Settling statistics; few examples behind the last step; what that costs."""
    by = arms(table)
    full, cut = by["full length"], by.get("variable lengths")
    limit = CHANCE_HALF * (1 - 1 / CLASSES)
    error = full["train_error"].mean()
    ready = [
        ("batch norm trains on full sequences", bool(error < limit),
         f"training error {100 * error:.1f} %, limit {100 * limit:.0f} %"),
        comparable(table),
    ]  # fmt: skip
    drift = sorted(c for c in table if c.startswith("drift/"))
    behind = sorted(c for c in table if c.startswith("behind/"))
    quarter, half = drift[len(drift) // 4], drift[len(drift) // 2]
    common = {"source": SOURCE, "preconditions": ready}
    found = [
        Claim(
            name="settling", kind="greater", primary=True, unit="s.d.",
            values=paired_differences(
                values(full, quarter, factor=1), values(full, half, factor=1)
            ),
            text="full sequences: a quarter into the sequence the running mean is farther from "
            "that of the last step than at half of it",
            published="converging, without a number", **common,
        ),
        Claim(
            name="shared", kind="greater",
            values=paired_differences(
                values(full, "test_error_shared"), values(full, "test_error")
            ),
            text="full sequences: one mean and variance for all steps have a higher test error "
            "than statistics per step", **common,
        ),
    ]  # fmt: skip
    if cut is not None:
        share = {
            seed: 0.25 * first - last
            for (seed, first), last in zip(
                values(cut, behind[0], factor=1).items(),
                values(cut, behind[-1], factor=1).values(),
                strict=True,
            )
        }
        stale = {
            name: paired_differences(values(rows, "test_error"), values(rows, "test_error_precise"))
            for name, rows in (("full", full), ("cut", cut))
        }
        found += [
            Claim(
                name="few behind the tail", kind="greater", values=share, unit="examples",
                text="variable lengths: behind the last step's statistics is less than a quarter "
                "of the first step's examples", **common,
            ),
            Claim(
                name="stale tail", kind="greater",
                values=paired_differences(stale["cut"], stale["full"]),
                text="variable lengths: the exponential average loses more against PreciseBN than "
                "with full sequences", **common,
            ),
        ]  # fmt: skip
    return found
