"""From runs by seed to means and proportions with intervals.

The unit of evidence is the *paired seed difference*: two arms that share a seed share initial
weights and the order of the data, so their difference is one independent observation. Claims are
judged by sign-flip tests of such differences (`tests`). Student's t, here, draws the bars of single
arms in figures and tables, and stands beside the verdicts as a check: an arm's values have no null
hypothesis under which their signs flip. A percentile bootstrap would look freer of assumptions and
is worse: over 5 seeds its 95 % interval covers 83 %, over 10 seeds 90 %.

Nothing here rescales: values leave in the unit they came in. scipy takes seconds to import and is
therefore imported where it is used.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from bnstudy.errors import did_you_mean


class Interval(NamedTuple):
    """A mean with its confidence interval, in the unit of the values."""

    mean: Any
    low: Any
    high: Any


def t_interval(values: Any, level: float = 0.95) -> Interval:
    """The Student-t interval of a mean.

    values: (..., n), any unit; the interval is taken along the last axis.
    level:  probability of covering the true mean, in (0, 1).
    Returns floats for one sample, arrays (...) for many. One value has a mean and no interval
    (NaN); a non-finite value makes its whole sample NaN, because a lost run must not vanish in a
    mean; values without any spread give an interval of width zero, which `judge` does not trust.
    Raises ValueError for a level outside (0, 1).
    """
    from scipy import stats

    if not 0 < level < 1:
        raise ValueError(f"level must lie between 0 and 1, got {level}.")
    values = np.asarray(values, dtype=float)
    n = values.shape[-1]
    values = np.where(np.isfinite(values).all(axis=-1, keepdims=True), values, np.nan)
    mean = values.mean(axis=-1) if n else np.full(values.shape[:-1], np.nan)
    half = np.full(values.shape[:-1], np.nan)
    if n > 1:
        half = stats.t.ppf(0.5 + level / 2, n - 1) * values.std(axis=-1, ddof=1) / math.sqrt(n)
    if values.ndim == 1:
        return Interval(float(mean), float(mean - half), float(mean + half))
    return Interval(mean, mean - half, mean + half)


def proportion_interval(k: int, n: int, level: float = 0.95) -> Interval:
    """The exact interval of a proportion, such as the part of an arm's runs that failed.

    k of n, n at least 1; fractions between 0 and 1. Covers at least `level`, at every n.
    Raises ValueError for k outside 0..n and a level outside (0, 1).
    Source: Clopper & Pearson 1934, Biometrika 26, 404-413.
    """
    from scipy import stats

    if not (0 <= k <= n and n >= 1):
        raise ValueError(f"k of n needs 0 <= k <= n and n >= 1, got {k} of {n}.")
    if not 0 < level < 1:
        raise ValueError(f"level must lie between 0 and 1, got {level}.")
    exact = stats.binomtest(k, n).proportion_ci(level, method="exact")
    return Interval(k / n, float(exact.low), float(exact.high))


def per_seed(
    table: pd.DataFrame, value: str, where: Mapping[str, Any] | None = None
) -> dict[int, float]:
    """The values of one arm: seed -> value.

    table: tidy, one row per run, with a column `seed`; where: column -> the value that a row must
    have. Empty when no row matches. Raises ValueError for an unknown column, and when a seed
    occurs twice, because the selection then mixes two arms.
    """
    where = where or {}
    _require(table, [*where, value, "seed"])
    for column, wanted in where.items():
        table = table[table[column] == wanted]
    if table["seed"].duplicated().any():
        raise ValueError(
            f"{dict(where) or 'the selection'} has several runs of one seed; also varying: "
            f"{_varying(table)}."
        )
    return {int(s): float(v) for s, v in zip(table["seed"], table[value], strict=True)}


def paired_differences(
    first: Mapping[int, float], second: Mapping[int, float], seeds: Sequence[int] | None = None
) -> dict[int, float]:
    """first - second, seed by seed, in the unit of both; a seed that one side lacks gives NaN.

    seeds: the seeds that were asked for (default: those that either side has). Differences can be
    differenced again: a difference in differences is this function applied twice.
    """
    seeds = sorted({*first, *second}) if seeds is None else list(seeds)
    return {s: float(first.get(s, math.nan)) - float(second.get(s, math.nan)) for s in seeds}


def summarize(
    table: pd.DataFrame, by: str | Sequence[str], value: str, level: float = 0.95
) -> pd.DataFrame:
    """Mean and Student-t interval of `value` over the seeds of every group.

    table: tidy, one row per run; by: the columns that make a group.
    Returns one row per group in order of appearance: the columns of `by`, then mean, low, high (the
    unit of `value`), n (finite values) and sd. A group with a lost value keeps its row, as NaN.
    Raises ValueError for an unknown column, and when a group holds several runs of one seed: they
    are not independent, and an interval over them would be too narrow.
    """
    by = [by] if isinstance(by, str) else list(by)
    _require(table, [*by, value])
    rows = []
    for key, group in table.groupby(by, sort=False, dropna=False):
        if "seed" in group and "seed" not in by and group["seed"].duplicated().any():
            raise ValueError(
                f"grouping by {', '.join(by)} puts several runs of one seed together; also "
                f"varying: {_varying(group)}. Group by that too, or select one of its values."
            )
        values = group[value].to_numpy(dtype=float)
        n = int(np.isfinite(values).sum())
        rows.append((*key, *t_interval(values, level), n, spread(values)))
    return pd.DataFrame(rows, columns=[*by, "mean", "low", "high", "n", "sd"])


def spread(values: np.ndarray) -> float:
    """Sample standard deviation; NaN for fewer than two values or where one is lost."""
    complete = len(values) > 1 and np.isfinite(values).all()
    return float(values.std(ddof=1)) if complete else math.nan


def _require(table: pd.DataFrame, columns: Sequence[str]) -> None:
    missing = [column for column in columns if column not in table]
    if missing:
        near = did_you_mean(missing[0], map(str, table))
        raise ValueError(f"the table has no column {', '.join(missing)}.{near}")


def _varying(table: pd.DataFrame) -> str:
    """The configuration columns (dotted names) with several values in this part of the table."""
    names = [c for c in table if "." in str(c) and table[c].astype(str).nunique() > 1]
    return ", ".join(names) or "no configuration column, so runs are doubled"
