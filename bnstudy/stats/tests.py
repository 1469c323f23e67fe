"""The sign-flip test of a mean of paired differences, and the interval that agrees with it.

If nothing distinguishes two arms, the difference of a seed is as likely to have either sign. The
test compares the observed mean with the means under all 2^n ways to flip signs: exact where the
differences are symmetric about their mean, whatever their distribution, and at every n.

Flipping signs of x - theta over a set A of seeds lets the sum grow exactly if the mean of x over A
lies below theta (the typical values of Hartigan 1969, J. Amer. Statist. Assoc. 64, 1303-1317).
So the means of all nonempty subsets, counted on either side of theta, give the p-value of every
theta at once, and two of them in sorted order are the ends of the interval.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import numpy as np

from bnstudy.stats.intervals import Interval

DRAWS = 99_999
"""Subsets that are counted: all of them up to n = 16, above it as many random ones; a p-value of
5 % then has a standard error of 0.07 points."""
DIGITS = 12
"""Subset means that agree in this many digits of the largest value are tied: float64 sums of n
values are right to 15 or more, and errors of runs differ in the first five."""
CHUNK = 1 << 22  # subset means held at a time (32 MB)


def sign_flip(values: Any, threshold: float = 0.0, draws: int = DRAWS) -> tuple[Any, Any]:
    """One-sided p-values of "the true mean is above the threshold" and "... below it".

    values:    (..., n), any unit, tested along the last axis.
    threshold: in the unit of the values.
    draws:     subsets to count: all 2^n - 1 where they are no more, else random ones, the same for
               every sample of this size; p = (1 + count) / (1 + draws), exact where all count.
    Ties count against both sides. Returns floats for one sample, arrays (...) for many; NaN where
    a value is not finite or there is none.
    Source: Fisher 1935, The Design of Experiments, section 21 (the test); Phipson & Smyth 2010,
    Stat. Appl. Genet. Mol. Biol. 9, 39 (the added one).
    """
    values, lost, shape = _flat(values)
    above, below = np.full(len(values), np.nan), np.full(len(values), np.nan)
    for rows, means, grid in _subset_means(values, draws):
        at = np.rint(threshold * grid)
        # every mean that rounds to the threshold's place on the grid is a tie
        above[rows] = 1 + (means <= (at + 0.5) / grid).sum(axis=-1)
        below[rows] = 1 + (means >= (at - 0.5) / grid).sum(axis=-1)
    p = np.stack([above, below]) / _equally_likely(values.shape[-1], draws)
    p[:, lost] = np.nan
    if not shape:
        return float(p[0, 0]), float(p[1, 0])
    return p[0].reshape(shape), p[1].reshape(shape)


def sign_flip_interval(values: Any, level: float = 0.95, draws: int = DRAWS) -> Interval:
    """The confidence interval of a mean that inverts the sign-flip test.

    values, draws: as in `sign_flip`, with the same random subsets: `low` lies above a threshold
    exactly where the one-sided p of "above" is at most (1 - level) / 2, and `high` likewise.
    level: probability of covering the true mean of symmetric values, in (0, 1).
    Returns floats for one sample, arrays (...) for many. The ends are infinite where n values
    cannot reach the level (see `fewest`), NaN where a value is not finite or there is none.
    Raises ValueError for a level outside (0, 1).
    """
    if not 0 < level < 1:
        raise ValueError(f"level must lie between 0 and 1, got {level}.")
    values, lost, shape = _flat(values)
    n = values.shape[-1]
    # how many of the smallest subset means must lie beyond a threshold that is rejected; the
    # summand makes up for 1 - 0.95 not being 0.05
    rank = math.floor((1 - level) / 2 * _equally_likely(n, draws) + 1e-9)
    ends = np.stack([np.full(len(values), -np.inf), np.full(len(values), np.inf)])
    if rank:
        for rows, means, grid in _subset_means(values, draws):
            last = means.shape[-1] - 1
            means.partition([rank - 1, last - rank + 1], axis=-1)
            ends[0, rows] = np.rint(means[:, rank - 1] * grid[:, 0]) / grid[:, 0]
            ends[1, rows] = np.rint(means[:, last - rank + 1] * grid[:, 0]) / grid[:, 0]
    ends[:, lost] = np.nan
    mean = values.mean(axis=-1) if n else np.full(len(values), np.nan)
    if not shape:
        return Interval(float(mean[0]), float(ends[0, 0]), float(ends[1, 0]))
    return Interval(mean.reshape(shape), *(end.reshape(shape) for end in ends))


def sides(kind: str, at: tuple[Any, Any], at_minus: tuple[Any, Any] | None = None) -> Any:
    """The p-values for and against a claim, to be compared with its level alpha.

    at, at_minus: one-sided p-values of "above" and "below" at the threshold and, for equivalent, at
    its negative. greater is two-sided, so its one-sided p-values are doubled; equivalent is two
    one-sided tests (Schuirmann 1987); not_worse is one one-sided test.
    """
    above, below = at
    if kind == "equivalent":
        assert at_minus is not None
        return np.maximum(at_minus[0], below), np.minimum(at_minus[1], above)
    if kind == "not_worse":
        return below, above
    return np.minimum(1.0, 2 * above), np.minimum(1.0, 2 * below)


def fewest(alpha: float) -> int:
    """The smallest n at which a two-sided sign-flip test can reject at alpha: 6 at 5 %.

    All n values on one side of the threshold give the smallest two-sided p, 2 / 2^n.
    """
    return math.ceil(math.log2(2 / alpha) - 1e-9)


def _flat(values: Any) -> tuple[np.ndarray, np.ndarray, tuple[int, ...]]:
    """Samples as rows, which of them hold no number that counts, and the shape to return."""
    values = np.asarray(values, dtype=float)
    shape = values.shape[:-1]
    rows = values.reshape(math.prod(shape), values.shape[-1])
    lost = ~np.isfinite(rows).all(axis=-1) | (rows.shape[-1] == 0)
    return np.where(lost[:, None], np.nan, rows), lost, shape


def _equally_likely(n: int, draws: int) -> int:
    """The number of sign patterns, the observed one included."""
    return 1 + _weights(n, draws).shape[-1]


def _subset_means(values: np.ndarray, draws: int) -> Iterator[tuple[slice, np.ndarray, np.ndarray]]:
    """Chunk by chunk: the rows, their means (rows, subsets), and how many grid steps make a unit.

    Sums of the same numbers in another order differ in the last digits; `grid` says where equal
    means fall on the same point: a power of ten that keeps DIGITS digits of the largest value.
    """
    weights = _weights(values.shape[-1], draws)
    step = max(1, CHUNK // max(1, weights.shape[-1]))
    for start in range(0, len(values), step):
        rows = slice(start, start + step)
        chunk = values[rows]
        largest = np.nan_to_num(np.abs(chunk).max(axis=-1, initial=0.0, keepdims=True))
        grid = 10.0 ** (DIGITS - np.ceil(np.log10(np.where(largest > 0, largest, 1.0))))
        yield rows, chunk @ weights, grid


@lru_cache(maxsize=4)
def _weights(n: int, draws: int) -> np.ndarray:
    """(n, m): the weights of n values in the means of nonempty subsets, all or random ones."""
    if 2**n - 1 <= draws:
        members = (np.arange(1, 2**n) >> np.arange(n)[:, None]) & 1
    else:
        members = np.random.default_rng(n).integers(0, 2, (n, draws), dtype=np.int8)
        members = members[:, members.any(axis=0)]  # the empty subset is the observed signs
    return members / members.sum(axis=0)
