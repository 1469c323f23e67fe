"""Test error by the estimate of population statistics, and its horizon in examples.

Primary claim: at the largest batch, momentum 0.02 (a horizon of 50 batches) has a higher test error
than PreciseBN. Written before the first run of the study's grid.
"""

import numpy as np
import pandas as pd

from bnstudy import figures, stats
from bnstudy.stats import Claim, paired_differences
from bnstudy.studies import (
    comparable,
    decomposition,
    panels,
    select,
    titled,
    trained,
    values,
    values_behind,
)

SIZE, MOMENTUM = "train.batch_size", "norm.momentum"
LONG, USUAL = 0.02, 0.1
XLABEL = "batch size (examples)"
SOURCE = "Wu & Johnson 2021, section 3.1"
PUBLISHED = {
    "what": "published: PreciseBN needs 1,000 to 10,000 examples; pooled moments replace "
    "the mean of batch variances (Wu & Johnson 2021). No single number to compare.",
}
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
    for row, (data, model) in zip(axes, panels(table), strict=True):
        here = select(table, data__name=data, model__name=model)
        running = here[here[MOMENTUM].notna()].copy()
        running["horizon"] = running[SIZE] / running[MOMENTUM]
        curves = {
            f"batch {size}": stats.summarize(rows, "horizon", "test_error")
            for size, rows in running.groupby(SIZE)
        }
        figures.series(row[0], curves, "horizon", percent=True, log2=None,
                       xlabel="horizon (examples)", ylabel="test error (%)")  # fmt: skip
        row[0].set_xscale("log")
        for (_, rows), (color, _) in zip(here.groupby(SIZE), figures.SERIES, strict=False):
            row[0].axhline(100 * rows["test_error_precise"].mean(), color=color, linewidth=0.8,
                           linestyle=(0, (4, 2)))  # fmt: skip
        row[0].set_title(f"{titled(data, model)}; dashed: PreciseBN")
        row[0].legend(fontsize=6.5)
        usual = here[here[MOMENTUM] == USUAL]
        curves = {label: stats.summarize(usual, SIZE, column)
                  for label, column in ESTIMATES.items()}  # fmt: skip
        cumulative = here[here[MOMENTUM].isna()]
        curves["cumulative average"] = stats.summarize(cumulative, SIZE, "test_error")
        figures.series(row[1], curves, SIZE, percent=True, xlabel=XLABEL, ylabel="test error (%)")
        row[1].set_title("by estimate")
        row[1].margins(y=0.5)
        row[1].legend(fontsize=6)
        decomposition(row[2], usual, SIZE, XLABEL)
        values_behind(row[3], usual, SIZE, XLABEL)


def claims(table: pd.DataFrame) -> list[Claim]:
    """Stale averages, the cumulative mean, the two estimators, averaged weights."""
    found = []
    for number, (data, model) in enumerate(panels(table)):
        here = select(table, data__name=data, model__name=model)
        small, large = int(here[SIZE].min()), int(here[SIZE].max())

        def cell(metric, size, momentum, rows=here):
            own = rows[rows[MOMENTUM].isna() if momentum is None else rows[MOMENTUM] == momentum]
            return values(own, metric, train__batch_size=size)

        ready = [
            trained(here, f"batch {large}", train__batch_size=large, norm__momentum=USUAL),
            comparable(here),
        ]
        where, common = titled(data, model), {"source": SOURCE, "preconditions": ready}
        found += [
            Claim(
                name=f"{data}: stale", kind="greater", primary=not number,
                text=f"{where}: at batch {large} an average of momentum {LONG} has a higher test "
                "error than PreciseBN",
                values=paired_differences(
                    cell("test_error", large, LONG), cell("test_error_precise", large, LONG)
                ), **common,
            ),
            Claim(
                name=f"{data}: cumulative", kind="greater",
                text=f"{where}: at batch {large} the cumulative mean has a higher test error than "
                f"momentum {USUAL}",
                values=paired_differences(
                    cell("test_error", large, None), cell("test_error", large, USUAL)
                ), **common,
            ),
            Claim(
                name=f"{data}: estimators", kind="greater",
                text=f"{where}: in batches of {small} the mean of batch variances has a higher "
                "test error than pooled moments",
                values=paired_differences(
                    cell("mean_of_batches_error", small, USUAL),
                    cell("precise_small_error", small, USUAL),
                ), **common,
            ),
            Claim(
                name=f"{data}: averaged weights", kind="greater",
                text=f"{where}: at batch {large}, with PreciseBN, the last weights have a higher "
                "test error than averaged ones",
                values=paired_differences(
                    cell("test_error_precise", large, USUAL),
                    cell("test_error_averaged_precise", large, USUAL),
                ), **{**common, "source": "Izmailov et al. 2018"},
            ),
        ]  # fmt: skip
    return found
