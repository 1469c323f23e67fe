"""How many seeds a study needs, computed from pilots by simulating the procedure that judges it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from bnstudy.errors import UserError
from bnstudy.stats import looks as spending
from bnstudy.stats.tests import DRAWS, sides, sign_flip

if TYPE_CHECKING:
    import pandas as pd

SMALLEST = 12
"""Fewest seeds of a study, whatever its power: below, the intervals of skewed differences fail."""
LARGEST = 200
CANDIDATES = (12, 16, 20, 24, 32, 40, 48, 64, 96)
SIGNS = 1_999
"""Sign patterns of a simulated test above n = 16: its level is right at any number of them, and
against 99,999 it loses less power than 2,000 simulations can tell."""


class Rates(NamedTuple):
    """How often a procedure ends with either verdict, and the seeds it needs on average."""

    supported: float
    refuted: float
    seeds: float


def decide(
    samples: np.ndarray,
    kind: str = "greater",
    threshold: float = 0.0,
    looks: Sequence[int] | None = None,
    alpha: float = 0.05,
    draws: int = DRAWS,
) -> tuple[np.ndarray, np.ndarray]:
    """The verdict on each sample, as `judge` gives it on a primary claim, and the seeds it took.

    samples: (samples, n), the differences in the order of seeds.
    looks:   seeds at each look, the last at most n; a sample that is decided takes no further
             look. Default: one look at all n.
    Returns two arrays (samples,): 1 supported, -1 refuted, 0 inconclusive; and seeds.
    """
    looks = list(looks or [samples.shape[-1]])
    if looks[-1] > samples.shape[-1]:
        raise UserError(f"a look at {looks[-1]} seeds needs samples of as many, not of fewer.")
    verdict = np.zeros(len(samples), dtype=int)
    seeds = np.full(len(samples), looks[-1])
    for look, level in zip(looks, spending.levels(looks, alpha), strict=True):
        rows = np.flatnonzero(verdict == 0)
        seen = samples[rows, :look]
        p_for, p_against = sides(
            kind,
            sign_flip(seen, threshold, draws),
            sign_flip(seen, -threshold, draws) if kind == "equivalent" else None,
        )
        verdict[rows] = np.where(p_for <= level, 1, np.where(p_against <= level, -1, 0))
        seeds[rows[verdict[rows] != 0]] = look
    return verdict, seeds


def decision_rate(
    pilots: Sequence[float],
    n: int,
    effect: float,
    kind: str = "greater",
    threshold: float = 0.0,
    looks: Sequence[int] | None = None,
    alpha: float = 0.05,
    simulations: int = 2000,
    seed: int = 0,
) -> Rates:
    """How often the procedure would decide if the true mean were `effect`, by simulation.

    pilots: paired differences of pilot seeds, at least 3, any unit; effect, threshold: same unit.
    n:      seeds of the study; with `looks`, the last of them.
    The simulated study draws n differences from the pilots with replacement, centred, widened by
    sqrt(k / (k - 1)) for k pilots so that their variance is the unbiased estimate, and moved to
    `effect`. So no shape is assumed but the pilots' own; a failure too rare to be among them is not
    foreseen. 2,000 simulations give a rate of 90 % a standard error of 0.7 points.
    Raises UserError for pilots that are too few, not finite or without spread, and n above 200.
    """
    samples = effect + _resampled(pilots, looks[-1] if looks else n, simulations, seed)
    verdict, seeds = decide(samples, kind, threshold, looks, alpha, SIGNS)
    return Rates(float(np.mean(verdict == 1)), float(np.mean(verdict == -1)), float(seeds.mean()))


def table(
    pilots: Sequence[float],
    effect: float,
    threshold: float = 0.0,
    kind: str = "greater",
    candidates: Sequence[int] = CANDIDATES,
    **how: Any,
) -> pd.DataFrame:
    """What each candidate n would find if there were no effect, and if there were `effect`.

    how: alpha, simulations and seed of `decision_rate`.
    Returns one row per n: n, supported_at_zero, refuted_at_zero, supported_at_effect,
    refuted_at_effect (rates in 0..1). Where the claim holds at zero only as its limit (greater with
    threshold 0), the first two are the errors of the procedure.
    """
    import pandas as pd

    rows = []
    for n in candidates:
        zero = decision_rate(pilots, n, 0.0, kind, threshold, **how)
        there = decision_rate(pilots, n, effect, kind, threshold, **how)
        rows.append((n, *zero[:2], *there[:2]))
    names = [f"{word}_at_{where}" for where in ("zero", "effect") for word in Rates._fields[:2]]
    return pd.DataFrame(rows, columns=["n", *names])


def seeds_needed(
    pilots: Sequence[float],
    effect: float,
    power: float = 0.9,
    threshold: float = 0.0,
    kind: str = "greater",
    **how: Any,
) -> int | None:
    """The smallest n, 12 at least, at which the right verdict is found with this power.

    The right verdict at a true mean of `effect`; with a threshold above zero also at a true mean of
    zero, where `greater` must be refuted and `equivalent` and `not_worse` supported.
    how: alpha, simulations and seed of `decision_rate`. None where 200 seeds are not enough.
    Raises UserError for a power outside (0, 1) and an effect that `check_effect`
    refuses.
    """
    if not 0 < power < 1:
        raise UserError(f"power must lie between 0 and 1, got {power}.")
    check_effect(effect, kind, threshold)
    truths = [effect] if threshold <= 0 else [effect, 0.0]

    def enough(n: int) -> bool:
        return all(
            getattr(decision_rate(pilots, n, truth, kind, threshold, **how), word) >= power
            for truth in truths
            for word in [_right(kind, truth, threshold)]
        )

    # Power grows with n, but for steps of the discrete test that are smaller than what a
    # simulation resolves: halve the range rather than try 189 sizes.
    low, high = SMALLEST, LARGEST
    if not enough(high):
        return None
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle + 1, high)
    return high


def check_effect(effect: float, kind: str = "greater", threshold: float = 0.0) -> None:
    """Refuse an effect that no number of seeds decides.

    Raises UserError for one that is not finite or at the threshold.
    """
    if not math.isfinite(effect):
        raise UserError(f"an effect must be a finite number, got {effect:g}.")
    if effect == threshold or (kind == "equivalent" and abs(effect) == threshold):
        raise UserError(
            f"an effect of {effect:g} is the threshold itself: no number of seeds decides it. "
            "Give the smallest effect that should be found."
        )


def _right(kind: str, truth: float, threshold: float) -> str:
    """The verdict that is right on a claim if this is the true mean."""
    if kind == "greater":
        holds = truth > threshold
    else:
        holds = (abs(truth) if kind == "equivalent" else truth) < threshold
    return "supported" if holds else "refuted"


def _resampled(pilots: Sequence[float], n: int, simulations: int, seed: int) -> np.ndarray:
    values = np.asarray(pilots, dtype=float)
    k = len(values)
    if k < 3 or not np.isfinite(values).all() or np.ptp(values) == 0:
        raise UserError(
            "a power computation needs at least 3 finite pilot differences that differ, got "
            f"{', '.join(f'{v:g}' for v in values) or 'none'}."
        )
    centred = (values - values.mean()) * math.sqrt(k / (k - 1))
    if not 2 <= n <= LARGEST:
        raise UserError(f"n must lie between 2 and {LARGEST}, got {n}.")
    # one row of a longer table per simulation, so that a larger n only adds seeds
    return centred[np.random.default_rng(seed).integers(0, k, (simulations, LARGEST))][:, :n]
