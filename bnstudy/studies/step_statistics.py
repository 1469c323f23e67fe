"""How fast statistics per time step settle, and what becomes of them in the tail.

How soon is the running mean of the recurrent term that of T_max? A fixed sequence asks at T / 2,
T / 4, T / 8 and T / 16 whether it is within 0.1 standard deviations. Primary claim: the first of
them, with full sequences. That few examples are left behind the last steps of sequences of
different lengths follows from how lengths are drawn: a demonstration. Written before the first run
of this version of the grid.
"""

import pandas as pd

from bnstudy import figures
from bnstudy.stats import Claim, paired_differences
from bnstudy.studies.drawing import across, course, gap
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
DISTANCE = "distance to the last step's mean (s.d.)"
READINGS = {"average": "test_error", "PreciseBN": "test_error_precise",
            "shared": "test_error_shared", "batch": "test_error_batch"}  # fmt: skip
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


def headline(table: pd.DataFrame) -> list[figures.Panel]:
    """How far the running mean is from the last step's, over time and at the claimed steps."""
    curves = [
        course(rows, "drift", style=figures.hue(i), label=arm, percent=False)
        for i, (arm, rows) in enumerate(lengths(table).items())
    ]
    settled = [figures.Band(SETTLED, SETTLED, "settled")]
    by = {claim.name: claim for claim in claims(table)}
    parts = {f"settled at 1/{part}": f"after 1/{part}" for part in PARTS}
    dots = [
        gap(label, by[name].values, style=style)
        for (name, label), style in zip(parts.items(), figures.ramp(len(parts)), strict=True)
    ]
    return [
        figures.Panel(
            "mean of the recurrent term", curves, "time step", DISTANCE, x="linear",
            bands=settled,
        ),
        figures.Panel(
            "full length: after a part of it", dots, ylabel=DISTANCE, kind="dots",
            bands=settled, claim=next(iter(parts)),
        ),
    ]  # fmt: skip


def details(table: pd.DataFrame) -> list[figures.Panel]:
    """Test error by the statistics that are read."""
    curves = [
        across(rows, READINGS, style=figures.hue(i), label=arm)
        for i, (arm, rows) in enumerate(lengths(table).items())
    ]
    return [
        figures.Panel("digits, pixel by pixel", curves, "statistics read", x="names", ceiling=100)
    ]


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
