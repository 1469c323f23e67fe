"""The numbers of a comparison: one row for each arm and each combination of the other axes.

Means have Student-t intervals. Differences are paired by seed; their intervals and p-values are
those of sign-flip tests, as in the verdicts of studies.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any

import pandas as pd

from bnstudy.errors import UserError, unknown
from bnstudy.stats import (
    paired_differences,
    per_seed,
    sign_flip,
    sign_flip_interval,
    t_interval,
)
from bnstudy.stats.failures import CLASSES, failed

LOWER_IS_BETTER = ("error", "loss")  # words in the name of a metric
RATES = ("test_error", "val_error", "train_error", "online_error")  # how their names begin
VERSIONS = ("bnstudy", "torch")  # columns of a table


def compare(
    table: pd.DataFrame,
    axes: Mapping[str, Sequence[Any]] | Sequence[str],
    metric: str = "test_error",
    level: float = 0.95,
    alpha: float | None = None,
) -> pd.DataFrame:
    """Mean, interval and paired difference to the first arm, for every cell of a grid.

    table:  tidy, one row per run, with `seed` and, where known, `wall_seconds`, `diverged_at`,
            `bnstudy` and `torch`.
    axes:   column -> its values in the order to show (a sequence of columns takes the values in
            order of appearance). The first axis is the arm; its first value is the reference.
    metric: a column of the table; numbers stay in its unit.
    level:  of the Student-t intervals of means; those of error rates end at 0 and 1.
    alpha:  at which differences are tested, 1 - level unless a look has a level of its own.
    Returns one row per combination, arms slowest: the axes, metric, runs, n (finite values), mean,
    low, high; difference, difference_low, difference_high (sign-flip interval of 1 - alpha,
    infinite where so few seeds cannot reach it), pairs (seeds both arms have), p (two-sided) and
    p_holm (adjusted for all differences of the frame); best (see `_best`); failed and diverged
    (number of runs; a diverged run failed, too; NaN in tables without num_classes and train_error);
    wall_seconds (mean of one run); level, alpha, bnstudy, torch. A cell without runs keeps its row
    with n = 0; a cell with a lost value has no mean. The reference has no difference.
    Raises UserError for an unknown axis or metric, and when a further column varies.
    Source of the adjustment: Holm 1979, Scand. J. Statist. 6, 65-70.
    """
    names = list(axes)
    _check(table, names, metric)
    values = {
        name: list(axes[name]) if isinstance(axes, Mapping) else list(table[name].unique())
        for name in names
    }
    alpha = 1 - level if alpha is None else alpha
    known = CLASSES in table and "train_error" in table and table[CLASSES].notna().all()
    rows, cells = [], []
    for point in product(*values.values()):
        where = dict(zip(names, point, strict=True))
        try:
            own = per_seed(table, metric, where)
            reference = per_seed(table, metric, {**where, names[0]: values[names[0]][0]})
        except ValueError as error:
            raise UserError(f"{error} Name it as a further axis, or fix its value.") from error
        runs = table[(table[names] == pd.Series(where)).all(axis=1)]
        first = point[0] == values[names[0]][0]
        rows.append(
            {
                **where,
                "metric": metric,
                "runs": len(runs),
                "n": sum(map(math.isfinite, own.values())),
                **_mean_of(list(own.values()), metric, level),
                **_difference({} if first else own, reference, alpha),
                "failed": int(failed(runs).sum()) if known else math.nan,
                "diverged": int(runs["diverged_at"].notna().sum()) if "diverged_at" in runs else 0,
                "wall_seconds": _mean(runs, "wall_seconds"),
                "level": level,
                "alpha": alpha,
                **{name: _joined(runs, name) for name in VERSIONS},
            }
        )
        cells.append(own)
    found = pd.DataFrame(rows)
    found.insert(found.columns.get_loc("p") + 1, "p_holm", _holm(found["p"]))
    best = _best(found, cells, names[1:], alpha)
    found.insert(found.columns.get_loc("p_holm") + 1, "best", best)
    return found


def undecided(comparison: pd.DataFrame) -> tuple[int, int]:
    """How many differences to the reference have an interval that holds zero, of how many."""
    gaps = comparison[comparison["difference"].notna() | (comparison["pairs"] > 0)]
    decided = (gaps["difference_low"] > 0) | (gaps["difference_high"] < 0)
    return int((~decided).sum()), len(gaps)


def _check(table: pd.DataFrame, names: Sequence[str], metric: str) -> None:
    """Refuse axes and metrics that the table does not have."""
    if not names:
        raise UserError("nothing to compare: give at least one axis, such as norm=batch,group.")
    for name in names:
        if name not in table:
            raise unknown("axis", name, (c for c in map(str, table) if "." in c))
    if metric not in table or not pd.api.types.is_numeric_dtype(table[metric]):
        numbers = table.select_dtypes("number").columns
        raise unknown("metric", metric, (c for c in map(str, numbers) if "." not in c))


def _mean_of(values: Sequence[float], metric: str, level: float) -> dict[str, float]:
    """Mean and Student-t interval; that of a rate ends at 0 and 1."""
    mean, low, high = t_interval(values, level)
    if metric.startswith(RATES):
        low, high = (min(max(end, 0.0), 1.0) if math.isfinite(end) else end for end in (low, high))
    return {"mean": mean, "low": low, "high": high}


def _difference(
    own: Mapping[int, float], reference: Mapping[int, float], alpha: float
) -> dict[str, float]:
    """The paired difference of two cells over the seeds that both have."""
    shared = sorted(own.keys() & reference.keys())
    gaps = list(paired_differences(own, reference, shared).values())
    mean, low, high = sign_flip_interval(gaps, 1 - alpha) if gaps else [math.nan] * 3
    ends = {"difference": mean, "difference_low": low, "difference_high": high}
    return {**ends, "pairs": len(gaps), "p": _p(gaps)}


def _p(gaps: Sequence[float]) -> float:
    """The two-sided p-value of the sign-flip test of no difference."""
    return (
        min(1.0, 2 * min(sign_flip(gaps))) if gaps and all(map(math.isfinite, gaps)) else math.nan
    )


def _holm(p: Sequence[float]) -> list[float]:
    """Holm's adjustment of the p-values that there are; where a value is lost there is none."""
    from statsmodels.stats.multitest import multipletests

    known = pd.Series(list(p), dtype=float)
    if known.notna().any():
        known[known.notna()] = multipletests(known.dropna(), method="holm")[1]
    return list(known)


def _best(
    found: pd.DataFrame, cells: Sequence[Mapping[int, float]], others: Sequence[str], alpha: float
) -> list[bool]:
    """Which cells are the lowest of their block and distinguishable from each other arm in it.

    A block is a combination of the other axes. Distinguishable: the paired difference to every
    other arm has a p of at most alpha, after Holm's adjustment for all these differences of the
    frame. Of metrics that are neither an error nor a loss it is not known which end is better.
    """
    best = [False] * len(found)
    if not any(word in str(found["metric"].iloc[0]) for word in LOWER_IS_BETTER):
        return best
    blocks = found.groupby(list(others), sort=False, dropna=False) if others else [((), found)]
    tests: list[tuple[int, float]] = []  # (row of the lowest mean, p against one other arm)
    for _, block in blocks:
        if len(block) < 2 or block["mean"].isna().any():
            continue
        lowest = int(block["mean"].idxmin())
        for row in block.index.drop(lowest):
            shared = sorted(cells[row].keys() & cells[lowest].keys())
            gaps = paired_differences(cells[row], cells[lowest], shared)
            tests.append((lowest, _p(list(gaps.values()))))
    adjusted = _holm([1.0 if math.isnan(p) else p for _, p in tests])
    for lowest in {row for row, _ in tests}:
        own = [p for (row, _), p in zip(tests, adjusted, strict=True) if row == lowest]
        best[lowest] = max(own) <= alpha
    return best


def _mean(runs: pd.DataFrame, column: str) -> float:
    """The mean of a column that the runs may lack."""
    return float(runs[column].mean()) if column in runs and len(runs) else math.nan


def _joined(runs: pd.DataFrame, column: str) -> str:
    """The values of a column, each once."""
    return ", ".join(sorted(set(runs[column].dropna()))) if column in runs else ""
