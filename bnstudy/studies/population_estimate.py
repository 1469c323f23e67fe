"""Test error by the estimate of population statistics, and its horizon in examples.

Primary claim: at the largest batch, momentum 0.02 (a horizon of 50 batches) has a higher test error
than PreciseBN. Written before the first run of the study's grid.
"""

import numpy as np
import pandas as pd

from bnstudy import figures, stats
from bnstudy.stats import Claim, paired_differences
from bnstudy.studies.drawing import decomposition, finish, values_behind
from bnstudy.studies.kit import Published, extended, panels, select

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
        curves = {
            f"batch {size}": stats.summarize(rows, "horizon", "test_error")
            for size, rows in here[here[MOMENTUM].notna()].groupby(SIZE)
        }
        figures.series(horizon, curves, "horizon", percent=True, log2=None,
                       xlabel="horizon (examples)", ylabel="test error (%)")  # fmt: skip
        horizon.set_xscale("log")
        for (_, rows), (color, _) in zip(here.groupby(SIZE), figures.SERIES, strict=False):
            horizon.axhline(100 * rows["test_error_precise"].mean(), color=color, linewidth=0.8,
                            linestyle=(0, (4, 2)))  # fmt: skip
        finish(horizon, f"{panel.title}; dashed: PreciseBN")
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
        found += [
            claim(
                "stale",
                f"at batch {large} an average of momentum {LONG} has a higher test error than "
                "PreciseBN",
                more("test_error", "test_error_precise", large, LONG), primary=panel.main,
            ),
            claim(
                "cumulative",
                f"at batch {large} the cumulative mean has a higher test error than momentum "
                f"{USUAL}",
                panel.difference({SIZE: large, MOMENTUM: None}, usual),
            ),
            claim(
                "estimators",
                f"in batches of {small} the mean of batch variances has a higher test error than "
                "pooled moments",
                more("mean_of_batches_error", "precise_small_error", small),
            ),
            claim(
                "averaged weights",
                f"at batch {large}, with PreciseBN, the last weights have a higher test error than "
                "averaged ones",
                more("test_error_precise", "test_error_averaged_precise", large),
                source="Izmailov et al. 2018",
            ),
        ]  # fmt: skip
    return found
