"""From intervals to verdicts: claims written down before the run, and what the seeds say of them.

Values come in the unit their claim names and leave in the same unit. scipy and statsmodels take
seconds to import and are therefore imported where they are used.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from bnstudy.stats.intervals import Interval, spread, t_interval

ALPHA = 0.05
POWER = 0.8
MIN_SEEDS = 5
LEVELS = {"greater": 0.95, "equivalent": 0.90, "not_worse": 0.90, "demonstration": 0.95,
          "identical": 0.95}  # fmt: skip
UNJUDGED = ("demonstration", "identical")  # no verdicts, and no part of any family
"""Claim kinds and the level of the two-sided interval that decides them; 90 % two-sided is 5 % on
each side, which is what two one-sided tests (Schuirmann 1987) and one one-sided test ask for."""


@dataclass(frozen=True)
class Claim:
    """One sentence that the seeds can support or refute, written down before the run.

    kind says what is claimed of the true mean of `values` (paired seed differences, in `unit`):
      greater     mean > threshold                  decided by the 95 % interval
      equivalent  -threshold < mean < threshold     decided by the 90 % interval
      not_worse   mean < threshold                  one-sided; positive values mean worse
    A compound sentence is several claims.

    values:           seed -> number; a lost cell is NaN.
    threshold:        in `unit`; for equivalent and not_worse the margin, above zero.
    published_effect: the source's number for the same mean, in `unit`; `published` is its wording.
    preconditions:    (what must hold, whether it does, detail) - one that fails makes it invalid.
    notes:            what a reader must know, such as runs that entered at chance error.
    Raises ValueError for an unknown kind or a margin that is not above zero.
    """

    name: str
    text: str
    kind: str
    values: Mapping[int, float]
    threshold: float = 0.0
    unit: str = "pp"
    estimand: str = ""
    primary: bool = False
    after: str = ""
    source: str = ""
    published: str = ""
    published_effect: float | None = None
    expected: str = "supported"
    preconditions: Sequence[tuple[str, bool, str]] = ()
    notes: Sequence[str] = ()
    scale: str = ""

    def __post_init__(self) -> None:
        if self.kind not in LEVELS:
            raise ValueError(
                f"claim '{self.name}': unknown kind '{self.kind}'. Allowed: {', '.join(LEVELS)}."
            )
        margin = self.kind in ("equivalent", "not_worse")
        if not math.isfinite(self.threshold) or (margin and self.threshold <= 0):
            raise ValueError(
                f"claim '{self.name}': the margin of kind '{self.kind}' must be a finite number"
                f"{' above zero' if margin else ''}, got {self.threshold}."
            )


@dataclass(frozen=True)
class Verdict:
    """What the seeds say about a claim: supported, refuted, inconclusive or invalid, and why.

    mean, low, high, sd, threshold, detectable, published_effect are in `unit`; low and high bound
    the two-sided interval of `level`, never adjusted. p belongs to the side the mean is on (for the
    claim or against it); p_holm is p after Holm's adjustment, None for the primary claim.

    detectable is what this study could have seen in 8 of 10 repetitions, from its own spread:
    for `greater` the smallest true mean that would be found beyond the threshold, to be compared
    with published_effect; for `equivalent` and `not_worse` the smallest margin that could be shown
    if there were no difference at all, to be compared with the margin. `underpowered` says that it
    is larger.
    """

    name: str
    text: str
    kind: str
    verdict: str
    primary: bool
    unit: str
    threshold: float
    mean: float
    low: float
    high: float
    level: float
    n: int
    sd: float
    p: float
    p_holm: float | None
    detectable: float
    published: str
    published_effect: float | None
    underpowered: bool
    expected: str
    source: str
    scale: str
    estimand: str = ""
    after: str = ""
    values: Mapping[int, float] = field(default_factory=dict)
    reasons: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """The verdict as plain JSON: what is not a number is null."""
        return plain(dataclasses.asdict(self))


def judge(claims: Sequence[Claim], min_seeds: int = MIN_SEEDS) -> list[Verdict]:
    """The verdicts on all claims of one study, in their order.

    Order of test: a precondition fails, too few seeds (below min_seeds) or a lost cell -> invalid;
    interval beyond the threshold -> supported; beyond it on the other side -> refuted; else
    inconclusive. Differences without any spread are inconclusive: no t interval exists for them,
    and identical seeds are more often a seed that is not alive than a certainty.

    Secondary claims are adjusted among themselves by Holm (1979), and the adjustment decides: a
    secondary claim is supported only if its adjusted p for the claim is below 0.05 as well, and
    refuted only if its adjusted p against it is. These are two families, each with an error rate
    of 5 %. Every secondary claim counts in both, invalid ones with p = 1, because the family was
    fixed before the run.

    Raises ValueError unless exactly one claim is primary and all names differ.
    """
    claims = list(claims)
    primaries = [claim.name for claim in claims if claim.primary]
    if len(primaries) != 1 and not all(claim.kind in UNJUDGED for claim in claims):
        raise ValueError(
            f"a study has exactly one primary claim, got {len(primaries)}"
            f"{': ' + ', '.join(primaries) if primaries else ''}."
        )
    if len({claim.name for claim in claims}) < len(claims):
        raise ValueError(f"claims need different names: {', '.join(c.name for c in claims)}.")
    if min_seeds < 2:
        raise ValueError(f"min_seeds must be at least 2 (one seed has no spread), got {min_seeds}.")

    evidence = [_weigh(claim, min_seeds) for claim in claims]
    secondary = [e for claim, e in zip(claims, evidence, strict=True)
                 if not claim.primary and claim.kind not in UNJUDGED]  # fmt: skip

    def family(side: str) -> list[float]:
        # an invalid claim is evidence of nothing, however small its own p
        return _holm([1.0 if e.faults else getattr(e, side) for e in secondary])

    adjusted = zip(family("p_for"), family("p_against"), strict=True)
    return [
        _rule(claim, e, None if claim.primary or claim.kind in UNJUDGED else next(adjusted))
        for claim, e in zip(claims, evidence, strict=True)
    ]


class _Evidence(NamedTuple):
    """What one claim's seeds say, before the other claims are looked at."""

    faults: list[str]
    interval: Interval
    n: int
    sd: float
    p_for: float = math.nan
    p_against: float = math.nan
    detectable: float = math.nan


def _weigh(claim: Claim, min_seeds: int) -> _Evidence:
    from scipy import stats

    values = np.array([claim.values[seed] for seed in sorted(claim.values)], dtype=float)
    lost = [str(seed) for seed in sorted(claim.values) if not math.isfinite(claim.values[seed])]
    n = len(values) - len(lost)
    faults = [
        f"precondition fails: {text}{f' ({detail})' if detail else ''}"
        for text, ok, detail in claim.preconditions
        if not ok
    ]
    if lost:
        faults.append(f"lost cell: no finite value for seed {', '.join(lost)}")
    if n < min_seeds:
        faults.append(f"too few seeds: {n} of at least {min_seeds}")
    interval = t_interval(values, LEVELS[claim.kind])
    sd = spread(values)
    if claim.kind == "identical":
        return _Evidence(faults, interval, n, sd)
    # Differences that agree to rounding have no spread: 1e-12 is 4,000 times float64's rounding
    # at magnitude one, and 1e9 times below one test example in a thousand.
    if not sd > 1e-12 * max(1.0, float(np.abs(values).max(initial=0.0))):
        return _Evidence(faults, interval, n, sd)

    error, margin, mean = sd / math.sqrt(n), claim.threshold, interval.mean
    above = float(stats.t.sf((mean - margin) / error, n - 1))  # p of "mean > threshold"
    below = float(stats.t.cdf((mean - margin) / error, n - 1))  # p of "mean < threshold"
    if claim.kind in ("greater", "demonstration"):  # two-sided, as the 95 % interval is
        p_for, p_against = min(1.0, 2 * above), min(1.0, 2 * below)
        detectable = margin + _effect(n, ALPHA / 2, POWER) * sd
    elif claim.kind == "equivalent":
        above_lower = float(stats.t.sf((mean + margin) / error, n - 1))
        p_for, p_against = max(above_lower, below), min(1 - above_lower, above)
        # both one-sided tests must succeed: each with 90 % for 80 % together
        detectable = _effect(n, ALPHA, (1 + POWER) / 2) * sd
    else:
        p_for, p_against = below, above
        detectable = _effect(n, ALPHA, POWER) * sd
    return _Evidence(faults, interval, n, sd, p_for, p_against, detectable)


def _rule(claim: Claim, evidence: _Evidence, adjusted: tuple[float, float] | None) -> Verdict:
    mean, low, high = evidence.interval
    if claim.kind in ("greater", "demonstration"):
        agrees = mean > claim.threshold
    else:
        agrees = (abs(mean) if claim.kind == "equivalent" else mean) < claim.threshold
    p = evidence.p_for if agrees else evidence.p_against
    p_holm = None if adjusted is None else adjusted[0 if agrees else 1]
    reasons = list(evidence.faults)
    if evidence.faults:
        verdict = "invalid"
    elif claim.kind == "identical":
        verdict = "false" if any(claim.values.values()) else "true"
    elif claim.kind == "demonstration":
        verdict = "shown" if low > claim.threshold else "not shown"
    elif math.isnan(p):
        verdict, p_holm = "inconclusive", None if adjusted is None else 1.0
        reasons.append(
            f"all {evidence.n} seeds give the same value: without spread there is no interval"
        )
    else:
        verdict = _read(claim.kind, low, high, claim.threshold)
        if verdict != "inconclusive" and p_holm is not None and p_holm >= ALPHA:
            reasons.append(
                f"the interval alone says {verdict}, Holm's adjustment does not: "
                f"p {p:.2g} becomes {p_holm:.2g}"
            )
            verdict = "inconclusive"
    yardstick = claim.published_effect if claim.kind == "greater" else claim.threshold
    underpowered = yardstick is not None and evidence.detectable > yardstick
    if underpowered:
        what = "the published effect" if claim.kind == "greater" else "the margin"
        reasons.append(
            f"underpowered: detectable {evidence.detectable:.3g} {claim.unit} exceeds {what} of "
            f"{yardstick:.3g} {claim.unit}".rstrip()
        )
    shared = {
        f.name: getattr(claim, f.name)
        for f in dataclasses.fields(Claim)
        if f.name not in ("preconditions", "notes", "values")
    }
    return Verdict(
        **shared,
        verdict=verdict,
        mean=mean,
        low=low,
        high=high,
        level=LEVELS[claim.kind],
        n=evidence.n,
        sd=evidence.sd,
        p=p,
        p_holm=p_holm,
        detectable=evidence.detectable,
        underpowered=underpowered,
        values=dict(sorted(claim.values.items())),
        reasons=(*reasons, *claim.notes),
    )


def _read(kind: str, low: float, high: float, threshold: float) -> str:
    """Where the interval lies; an interval that touches the threshold decides nothing."""
    if kind == "greater":
        supported, refuted = low > threshold, high < threshold
    elif kind == "equivalent":
        supported = -threshold < low and high < threshold
        refuted = low > threshold or high < -threshold
    else:
        supported, refuted = high < threshold, low > threshold
    return "supported" if supported else "refuted" if refuted else "inconclusive"


def _holm(p: list[float]) -> list[float]:
    from statsmodels.stats.multitest import multipletests

    if not p:
        return []
    return [
        float(q) for q in multipletests([1.0 if math.isnan(x) else x for x in p], method="holm")[1]
    ]


@lru_cache
def _effect(n: int, alpha: float, power: float) -> float:
    """The standardized effect that a one-sided t test over n differences finds with this power."""
    from statsmodels.stats.power import TTestPower

    # One-sided on purpose: a finding on the wrong side is no finding of this effect.
    solved = TTestPower().solve_power(nobs=n, alpha=alpha, power=power, alternative="larger")
    return float(np.squeeze(solved))


def plain(value: Any) -> Any:
    """Plain Python values that strict JSON can hold: NaN and infinity become None."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, (float, np.floating)):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, np.generic):
        return value.item()
    return value
