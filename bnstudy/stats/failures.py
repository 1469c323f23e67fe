"""Failed runs: which they are, and how often they happen."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from bnstudy.stats.intervals import proportion_interval

if TYPE_CHECKING:
    import pandas as pd

HALF = 0.5  # a run has learned when its training error is at most this part of chance
CLASSES = "num_classes"


def chance(table: pd.DataFrame) -> pd.Series[float]:
    """Each run's error of guessing among its classes, 1 - 1 / K, a fraction.

    Raises ValueError for a table without the column `num_classes`, or with runs that lack it.
    """
    if CLASSES not in table or table[CLASSES].isna().any():
        raise ValueError(
            f"no column {CLASSES} for all runs: chance follows from the number of classes, which "
            "every record of this version holds. Train the runs of earlier versions again."
        )
    return 1 - 1 / table[CLASSES].astype(float)


def failed(table: pd.DataFrame) -> pd.Series[bool]:
    """Which runs did not learn: diverged, or final training error above half of chance.

    Most characters of a text cannot be predicted, however well it is learned: there a run fails
    when its training loss is that of guessing among the characters, ln K, or more. A run without
    a training error (or loss) failed.

    table: one row per run, with num_classes and train_error (train_loss for a text).
    Raises ValueError for a table without num_classes.
    """
    import numpy as np

    learned = table["train_error"] <= HALF * chance(table)
    if "data.name" in table:
        text = table["data.name"] == "text"
        if text.any():
            below = table["train_loss"] < np.log(table[CLASSES].astype(float))
            learned = learned.mask(text, below)
    if "diverged_at" in table:
        learned &= table["diverged_at"].isna()
    return ~learned


def failures(table: pd.DataFrame, by: Sequence[str]) -> pd.DataFrame:
    """How many runs of each cell failed, and the rate with its exact 95 % interval.

    by: columns that name a cell; a setting that is not set is a value of its own.
    Returns one row per cell: by..., failed, n, rate, low, high (fractions; Clopper & Pearson 1934).
    """
    import pandas as pd

    flags = pd.concat([table[list(by)], failed(table).rename("failed")], axis=1)
    found = flags.groupby(list(by), dropna=False)["failed"].agg(["sum", "size"]).reset_index()
    intervals = [
        proportion_interval(int(k), int(n))
        for k, n in zip(found["sum"], found["size"], strict=True)
    ]
    numbers = pd.DataFrame(intervals, columns=["rate", "low", "high"])
    named = found.rename(columns={"sum": "failed", "size": "n"})
    return pd.concat([named, numbers], axis=1)
