"""Test error by the estimate of population statistics, and its horizon in examples.

Primary claim: at the largest batch, momentum 0.02 (a horizon of 50 batches) has a higher test error
than PreciseBN, the part that the average still holds of its initial values taken off. Written
before the first run of this version of the grid; the pixel noise (0.5, then 0.3) was chosen after a
first look at an earlier one, with other seeds.
"""

import numpy as np
import pandas as pd

from bnstudy import figures, stats
from bnstudy.stats import Claim, paired_differences
from bnstudy.studies.drawing import decomposition, finish, values_behind
from bnstudy.studies.kit import (
    CORRECTED,
    EMA,
    PRECISE,
    Published,
    extended,
    panels,
    select,
    sequence,
)

SIZE, MOMENTUM = "train.batch_size", "norm.momentum"
LONG, USUAL = 0.02, 0.1
XLABEL = "batch size (examples)"
SOURCE = "Wu & Johnson 2021, section 3.1"
PUBLISHED = Published(
    "published", SOURCE,
    "PreciseBN needs 1,000 to 10,000 examples; pooled moments replace the mean of batch variances. "
    "No single number to compare.",
)  # fmt: skip
ESTIMATES = {
    "exponential average, momentum 0.1": "test_error",
    "PreciseBN, large batches": "test_error_precise",
    "PreciseBN, training batches": "precise_small_error",
    "mean of batches' variances": "mean_of_batches_error",
    "averaged weights, PreciseBN": "test_error_averaged_precise",
}


def shape(table: pd.DataFrame) -> tuple[int, int]:
    """A row for each data set: horizon, estimates, decomposition, values behind."""
    return len(panels(table)), 4


def figure(table: pd.DataFrame, axes: np.ndarray) -> None:
    """Error by horizon in examples and by estimate; decomposition; m."""
    table = extended(table, {"horizon": table[SIZE] / table[MOMENTUM]})
    for (horizon, estimate, parts, behind), panel in zip(axes, panels(table), strict=True):
        here = panel.rows
        averages = [rows for _, rows in here[here[MOMENTUM].notna()].groupby(SIZE)]
        curves = {
            f"batch {rows[SIZE].iloc[0]}": stats.summarize(rows, "horizon", "test_error")
            for rows in averages
        }
        figures.series(horizon, curves, "horizon", percent=True, log2=None,
                       xlabel="horizon (examples)", ylabel="test error (%)")  # fmt: skip
        horizon.set_xscale("log")
        for (_, rows), (color, _) in zip(here.groupby(SIZE), figures.SERIES, strict=False):
            horizon.axhline(100 * rows["test_error_precise"].mean(), color=color, linewidth=0.8,
                            linestyle=(0, (4, 2)))  # fmt: skip
        # the same averages without their initial values, in the color of their batch size
        for rows, (color, _) in zip(averages, figures.SERIES, strict=False):
            means = rows.groupby("horizon")["corrected_error"].mean()
            horizon.plot(means.index, 100 * means, color=color, linewidth=0.9, linestyle=":")
        for label, dashes in (("PreciseBN", (0, (4, 2))), ("without initial values", ":")):
            horizon.plot([], [], color="grey", linewidth=0.9, linestyle=dashes, label=label)
        finish(horizon, panel.title, fontsize=6, room=0.4)
        usual, cumulative = (select(here, {MOMENTUM: value}) for value in (USUAL, None))
        curves = {label: stats.summarize(usual, SIZE, column)
                  for label, column in ESTIMATES.items()}  # fmt: skip
        curves["cumulative average"] = stats.summarize(cumulative, SIZE, "test_error")
        figures.series(estimate, curves, SIZE, percent=True, xlabel=XLABEL, ylabel="test error (%)")
        finish(estimate, "by estimate", fontsize=6, room=0.5)
        decomposition(parts, usual, SIZE, XLABEL)
        values_behind(behind, usual, SIZE, XLABEL)


def claims(table: pd.DataFrame) -> list[Claim]:
    """Stale averages, the cumulative mean, the two estimators, averaged weights."""
    found = []
    for panel in panels(table):
        small, large = int(panel.rows[SIZE].min()), int(panel.rows[SIZE].max())

        def more(first, second, size, momentum=USUAL, panel=panel):
            """How much more of one error than of another a cell has."""
            cell = {SIZE: size, MOMENTUM: momentum}
            return paired_differences(panel.cell(first, cell), panel.cell(second, cell))

        usual = {SIZE: large, MOMENTUM: USUAL}
        claim = panel.claims(
            panel.data, source=SOURCE, preconditions=panel.ready(f"batch {large}", usual)
        )
        found += sequence(
            claim(
                "stale",
                f"at batch {large} an average of momentum {LONG}, without its initial values, has "
                "a higher test error than PreciseBN",
                more("corrected_error", "test_error_precise", large, LONG),
                primary=panel.main,
                estimand=f"{CORRECTED} minus {PRECISE}",
            ),
            claim(
                "stale at the usual momentum", f"so has one of momentum {USUAL}",
                more("corrected_error", "test_error_precise", large),
                estimand=f"{CORRECTED} minus {PRECISE}",
            ),
        )  # fmt: skip
        longest = panel.rows[MOMENTUM].min()
        found += [
            claim(
                "initial values",
                f"at batch {large} what an average of momentum {longest:g} holds of its initial "
                "values raises its test error",
                more("test_error", "corrected_error", large, longest),
                estimand=f"{EMA} minus {CORRECTED}",
            ),
            claim(
                "cumulative",
                f"at batch {large} the cumulative mean has a higher test error than momentum "
                f"{USUAL}",
                panel.difference({SIZE: large, MOMENTUM: None}, usual), estimand=EMA,
            ),
            claim(
                "estimators",
                f"in batches of {small} the mean of batch variances has a higher test error than "
                "pooled moments",
                more("mean_of_batches_error", "precise_small_error", small), estimand=PRECISE,
            ),
            claim(
                "averaged weights",
                f"at batch {large}, with PreciseBN, the last weights have a higher test error than "
                "averaged ones",
                more("test_error_precise", "test_error_averaged_precise", large),
                estimand=PRECISE, source="Izmailov et al. 2018",
            ),
        ]  # fmt: skip
    return found
