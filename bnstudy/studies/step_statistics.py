"""How fast statistics per time step settle, and what becomes of them in the tail.

How soon is the running mean of the recurrent term that of T_max? A fixed sequence asks at T / 2,
T / 4, T / 8 and T / 16 whether it is within 0.1 standard deviations. Primary claim: the first of
them, with full sequences. That few examples are left behind the last steps of sequences of
different lengths follows from how lengths are drawn: a demonstration. Written before the first run
of this version of the grid.
"""

import numpy as np
import pandas as pd

from bnstudy import figures
from bnstudy.stats import Claim, paired_differences
from bnstudy.studies.drawing import course, finish, interval
from bnstudy.studies.kit import (
    EMA,
    PRECISE,
    Published,
    claims_about,
    comparable,
    filled,
    sequence,
    trained,
    values,
)

SHORTEST = "data.min_length"
PARTS = (2, 4, 8, 16)  # of the sequence: the running mean is looked at after 1 / 2 of it, ...
SETTLED = 0.1  # s.d.: moves a normalized value by a tenth of its own spread
SOURCE = "Cooijmans et al. 2017, figure 3a"
PUBLISHED = Published(
    "published", SOURCE,
    "the statistics converge to a stationary distribution; no number is given",
)  # fmt: skip


def lengths(table: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Runs with full sequences, and with cut ones."""
    cut = filled(table, {SHORTEST: None})[SHORTEST].notna()
    found = {"full length": table[~cut], "variable lengths": table[cut]}
    return {name: rows for name, rows in found.items() if len(rows)}


def shape(table: pd.DataFrame) -> tuple[int, int]:
    """Drift of the mean, examples behind a step, test error by statistics."""
    return 1, 3


def figure(table: pd.DataFrame, axes: np.ndarray) -> None:
    """Curves over time steps; points of errors."""
    drift, behind, errors = np.ravel(axes)
    for ax, name, label, title in (
        (drift, "drift", "distance to T_max (s.d.)", "running mean of the recurrent term"),
        (behind, "behind", "valid examples", "examples behind a step's statistics"),
    ):
        curves = {arm: course(rows, name) for arm, rows in lengths(table).items()}
        figures.series(ax, curves, log2=None, xlabel="time step", ylabel=label)
        if name == "drift":
            ax.axhline(SETTLED, color="black", linewidth=0.7, linestyle=":", label="settled")
        finish(ax, title, room=0.25)
    readings = {"exponential average": "test_error", "PreciseBN": "test_error_precise",
                "shared over time": "test_error_shared",
                "batch statistics": "test_error_batch"}  # fmt: skip
    curves = {
        arm: pd.concat([interval(rows, c).assign(x=float(i))
                        for i, c in enumerate(readings.values())])
        for arm, rows in lengths(table).items()
    }  # fmt: skip
    figures.series(errors, curves, percent=True, log2=None, ylabel="test error (%)")
    for line in errors.get_lines():
        line.set_linestyle("none")
    errors.set_xticks(range(len(readings)), list(readings), rotation=25, ha="right", fontsize=6.5)
    finish(errors, "digits, pixel by pixel: read with", room=0.25)


def claims(table: pd.DataFrame) -> list[Claim]:
    """When statistics have settled; few examples behind the last step; what that costs."""
    by = lengths(table)
    full, cut = by.get("full length", table.iloc[:0]), by.get("variable lengths")
    drift, behind = (sorted(c for c in table if c.startswith(f"{n}/")) for n in ("drift", "behind"))
    common = {
        "source": SOURCE,
        "preconditions": [trained(full, "batch norm on full sequences"), comparable(table)],
    }

    def more(rows: pd.DataFrame, first: str, second: str, factor: float = 100) -> dict[int, float]:
        """How much more of one column than of another some runs have."""
        return paired_differences(*(values(rows, c, factor=factor) for c in (first, second)))

    claim = claims_about("full sequences", **common)
    found = sequence(*(
        claim(
            f"settled at 1/{part}",
            f"after 1/{part} of the steps the running mean is within {SETTLED:g} s.d. of that of "
            "the last step",
            values(full, drift[len(drift) // part], factor=1), "not_worse", threshold=SETTLED,
            primary=part == PARTS[0], unit="s.d.", published="converging, without a number",
            estimand="distance of running means, root mean square over channels",
        )
        for part in PARTS
    ))  # fmt: skip
    found.append(
        claim(
            "shared",
            "one mean and variance for all steps have a higher test error than statistics per step",
            more(full, "test_error_shared", "test_error"), estimand=EMA,
        )
    )  # fmt: skip
    if cut is None:
        return found
    first, last = (values(cut, behind[i], factor=1) for i in (0, -1))
    middle = drift[len(drift) // 2]
    stale = [more(rows, "test_error", "test_error_precise") for rows in (cut, full)]
    claim = claims_about("variable lengths", **common)
    return [
        *found,
        claim(
            "few behind the tail",
            "behind the last step's statistics is less than a quarter of the first step's examples",
            paired_differences({seed: 0.25 * n for seed, n in first.items()}, last),
            "demonstration", unit="examples", estimand="running number of valid examples",
        ),
        claim(
            "tail wanders",
            "half way the running mean is farther from that of the last step than with full "
            "sequences",
            paired_differences(*(values(rows, middle, factor=1) for rows in (cut, full))),
            unit="s.d.", estimand="distance of running means, root mean square over channels",
        ),
        claim(
            "stale tail",
            "the exponential average loses more against PreciseBN than with full sequences",
            paired_differences(*stale), estimand=f"{EMA} minus {PRECISE}",
        ),
    ]  # fmt: skip
