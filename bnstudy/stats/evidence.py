"""What the seeds say of one claim, before the other claims are looked at."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from statistics import NormalDist
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from bnstudy.stats.intervals import Interval, spread, t_interval
from bnstudy.stats.tests import fewest, sides, sign_flip, sign_flip_interval

if TYPE_CHECKING:
    from bnstudy.stats.verdicts import Claim

POWER = 0.8
MANY = 10_000  # seeds, of which nobody trains more


class Test(NamedTuple):
    """One method's interval and its p-values for and against the claim."""

    interval: Interval
    p_for: float = math.nan
    p_against: float = math.nan


class Evidence(NamedTuple):
    """What one claim's seeds say, before the other claims are looked at."""

    faults: list[str]
    n: int
    sd: float
    test: Test
    student: Test
    detectable: float = math.nan
    unequal: tuple[int, ...] = ()  # of kind identical: the seeds whose runs differ


def weigh(claim: Claim, alpha: float) -> Evidence:
    """The evidence on one claim at level alpha: its faults, intervals, p-values and power.

    Two methods side by side: the sign-flip test, which decides, and Student's t.
    """
    seeds = sorted(claim.values)
    values = np.array([claim.values[seed] for seed in seeds], dtype=float)
    lost = [str(seed) for seed in seeds if not math.isfinite(claim.values[seed])]
    n = len(values) - len(lost)
    faults = [
        f"precondition fails: {text}{f' ({detail})' if detail else ''}"
        for text, ok, detail in claim.preconditions
        if not ok
    ]
    if lost:
        faults.append(f"lost cell: no finite value for seed {', '.join(lost)}")
    sd = spread(values)
    if claim.kind == "identical":
        if not n:
            faults.append("no runs to compare")
        nothing = Test(Interval(float(values.mean()) if n else math.nan, math.nan, math.nan))
        unequal = tuple(seed for seed in seeds if claim.values[seed] != 0)
        return Evidence(faults, n, sd, nothing, nothing, unequal=unequal)
    if n < fewest(alpha):
        faults.append(
            f"too few seeds: n = {n} cannot reach {100 * alpha:.3g} %, {fewest(alpha)} at least can"
        )
    level = interval_level(claim.kind, alpha)
    test, student = Test(sign_flip_interval(values, level)), Test(t_interval(values, level))
    # Differences that agree to rounding have no spread: 1e-12 is 4,000 times float64's rounding
    # at magnitude one, and 1e9 times below one test example in a thousand.
    if not sd > 1e-12 * max(1.0, float(np.abs(values).max(initial=0.0))):
        if claim.kind not in ("equivalent", "not_worse") or values.any() or not n:
            return Evidence(faults, n, sd, test, student)
        # equal in every seed: signs can be flipped all the same, and t has nothing to add
        for_, against = sides(
            claim.kind, sign_flip(values, claim.threshold), sign_flip(values, -claim.threshold)
        )
        equal = Test(test.interval, float(for_), float(against))
        return Evidence(faults, n, sd, equal, equal)

    def weighed(test: Test, p: Callable[[np.ndarray, float], tuple[float, float]]) -> Test:
        at, at_minus = p(values, claim.threshold), p(values, -claim.threshold)
        p_for, p_against = sides(claim.kind, at, at_minus)
        return Test(test.interval, float(p_for), float(p_against))

    test, student = weighed(test, sign_flip), weighed(student, _student)
    return Evidence(faults, n, sd, test, student, _detectable(claim, n, sd, alpha))


def interval_level(kind: str, alpha: float) -> float:
    """The level of the two-sided interval that decides; 1 - 2 alpha leaves alpha on each side."""
    return 1 - 2 * alpha if kind in ("equivalent", "not_worse") else 1 - alpha


def _student(values: np.ndarray, threshold: float) -> tuple[float, float]:
    """One-sided p-values of "mean > threshold" and "mean < threshold" by Student's t."""
    from scipy import stats

    t = (values.mean() - threshold) * math.sqrt(len(values)) / spread(values)
    return float(stats.t.sf(t, len(values) - 1)), float(stats.t.cdf(t, len(values) - 1))


def _detectable(claim: Claim, n: int, sd: float, alpha: float) -> float:
    if claim.kind == "equivalent":  # both one-sided tests must succeed: 90 % each for 80 % together
        return _effect(n, alpha, (1 + POWER) / 2) * sd
    if claim.kind == "not_worse":
        return _effect(n, alpha, POWER) * sd
    return claim.threshold + _effect(n, alpha / 2, POWER) * sd


def would_decide(claim: Claim, evidence: Evidence, alpha: float) -> str:
    """How many seeds would decide a claim if mean and spread were those measured, in words.

    By the normal approximation n = ((z_level + z_power) sd / (mean - threshold))^2, for equivalent
    with the nearer margin. Empty where the differences have no spread.
    """
    mean, sd = evidence.test.interval.mean, evidence.sd
    if math.isnan(evidence.detectable):
        return ""
    apart = (abs(mean) if claim.kind == "equivalent" else mean) - claim.threshold
    one_sided = (1 - interval_level(claim.kind, alpha)) / 2
    power = (1 + POWER) / 2 if claim.kind == "equivalent" else POWER  # as in `_detectable`
    z = NormalDist().inv_cdf(1 - one_sided) + NormalDist().inv_cdf(power)
    limit = "margin" if claim.kind in ("equivalent", "not_worse") else "threshold"
    if abs(apart) <= z * sd / math.sqrt(MANY):
        return (
            f"more than {MANY:,} seeds would be needed to decide it: the measured mean is at or "
            f"next to the {limit}"
        )
    n = max(math.ceil((z * sd / apart) ** 2), evidence.n + 1)  # these have not decided it
    step = 10 ** max(0, len(str(n)) - 2)  # two digits: the spread is not known better
    return (
        f"about {step * math.ceil(n / step):,} seeds would decide it with {100 * POWER:.0f} % "
        "power at the measured mean and spread"
    )


@lru_cache
def _effect(n: int, alpha: float, power: float) -> float:
    """The standardized effect that a one-sided t test over n differences finds with this power."""
    from statsmodels.stats.power import TTestPower

    # One-sided on purpose: a finding on the wrong side is no finding of this effect.
    solved = TTestPower().solve_power(nobs=n, alpha=alpha, power=power, alternative="larger")
    return float(np.squeeze(solved))
