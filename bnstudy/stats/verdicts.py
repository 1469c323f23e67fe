"""From intervals to verdicts: claims written down before the run, and what the seeds say of them.

Values come in the unit their claim names and leave in the same unit. scipy and statsmodels take
seconds to import and are therefore imported where they are used.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from bnstudy.stats.evidence import Evidence, interval_level, weigh, would_decide
from bnstudy.stats.families import UNCOUNTED, Ruling, check, rule
from bnstudy.stats.tests import fewest

ALPHA = 0.05
KINDS = ("greater", "equivalent", "not_worse", *UNCOUNTED)
MIN_SEEDS = fewest(ALPHA)


@dataclass(frozen=True)
class Claim:
    """One sentence that the seeds can support or refute, written down before the run.

    kind says what is claimed of the true mean of `values` (paired seed differences, in `unit`):
      greater        mean > threshold                  decided by the 95 % interval
      equivalent     -threshold < mean < threshold     decided by the 90 % interval
      not_worse      mean < threshold                  one-sided; positive values mean worse
      demonstration  mean > threshold, as mathematics guarantees: "shown" or "not shown"
      identical      runs are equal to the bit, every value 0: "true" or "false", no interval
    A compound sentence is several claims. The last two are never counted among verdicts.

    values:           seed -> number; a lost cell is NaN.
    threshold:        in `unit`; for equivalent and not_worse the margin, above zero.
    estimand:         the number that is compared, such as "test error, exponential average".
    after:            the claim that must be supported or refuted before this one is judged: claims
                      that are nested or exclusive form one sequence, which starts at the primary.
    published_effect: the source's number for the same mean, in `unit`; `published` is its wording.
    preconditions:    (what must hold, whether it does, detail) - one that fails makes it invalid.
    notes:            what a reader must know, such as runs that entered at chance error.
    Raises ValueError for an unknown kind, a margin that is not above zero, and a place among the
    verdicts for a claim that is none.
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
        if self.kind not in KINDS:
            raise ValueError(
                f"claim '{self.name}': unknown kind '{self.kind}'. Allowed: {', '.join(KINDS)}."
            )
        margin = self.kind in ("equivalent", "not_worse")
        if not math.isfinite(self.threshold) or (margin and self.threshold <= 0):
            raise ValueError(
                f"claim '{self.name}': the margin of kind '{self.kind}' must be a finite number"
                f"{' above zero' if margin else ''}, got {self.threshold}."
            )
        if self.kind in UNCOUNTED and (self.primary or self.after):
            raise ValueError(
                f"claim '{self.name}': kind '{self.kind}' gives no verdict, so it is neither "
                "primary nor after another claim."
            )
        if self.primary and self.after:
            raise ValueError(
                f"claim '{self.name}': the primary claim starts the sequence, so it comes after "
                f"none; got after '{self.after}'."
            )


@dataclass(frozen=True)
class Verdict:
    """What the seeds say about a claim, and why: `verdict` is one of

    supported | refuted | inconclusive | invalid, for demonstrations shown | not shown | invalid,
    for identical true | false | invalid.

    mean, low, high, sd, threshold, detectable, published_effect are in `unit`; low and high bound
    the two-sided sign-flip interval of `level` = 1 - alpha (1 - 2 alpha for one-sided kinds), never
    adjusted; alpha is the level of this look, 5 % where there is one look. p belongs to the side
    the mean is on (for the claim or against it); p_holm is p after Holm's adjustment, None for
    claims outside the family.

    t_low, t_high, t_verdict: what Student's t says by the same rules, as a check of sensitivity.

    detectable is what this study could have seen in 8 of 10 repetitions, by the t test's power at
    its own spread: for `greater` the smallest true mean that would be found beyond the threshold,
    to be compared with published_effect; for `equivalent` and `not_worse` the smallest margin that
    could be shown if there were no difference at all, to be compared with the margin.
    `underpowered` says of an inconclusive claim that it is larger.
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
    alpha: float = ALPHA
    t_low: float = math.nan
    t_high: float = math.nan
    t_verdict: str = ""
    values: Mapping[int, float] = field(default_factory=dict)
    reasons: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """The verdict as plain JSON: what is not a number is null."""
        return plain(dataclasses.asdict(self))


def judge(claims: Sequence[Claim], alpha: float = ALPHA) -> list[Verdict]:
    """The verdicts on all claims of one study, in their order.

    alpha: the level of this look, from `looks.levels` where a study looks several times.

    Order of test: a precondition fails, a lost cell, too few seeds to reach alpha -> invalid;
    interval beyond the threshold -> supported; beyond it on the other side -> refuted; else
    inconclusive. Tests are sign-flip tests, intervals invert them. Differences without any spread
    are inconclusive: identical seeds are more often a seed that is not alive than a certainty.

    Claims that follow the primary one by `after` are judged at alpha, too, as long as the claim
    before is supported or refuted; behind one that is neither, all are inconclusive.

    Other secondary claims are adjusted among themselves by Holm, and the adjustment decides: such a
    claim is supported only if its adjusted p for the claim is at most alpha as well, and refuted
    only if its adjusted p against it is. These are two families, each with an error rate of alpha.
    Every such claim counts in both, invalid ones with p = 1, because the family was fixed before
    the run.

    Raises ValueError unless exactly one claim is primary (none where all are demonstrations or
    identical), names differ, and `after` makes one sequence.
    """
    if not 0 < alpha < 0.5:
        raise ValueError(f"alpha must lie between 0 and 0.5, got {alpha}.")
    claims = list(claims)
    check(claims)
    evidence = [weigh(claim, alpha) for claim in claims]
    rulings = rule(claims, evidence, [e.test for e in evidence], alpha)
    student = rule(claims, evidence, [e.student for e in evidence], alpha)
    rows = zip(claims, evidence, rulings, student, strict=True)
    return [_verdict(*row, alpha) for row in rows]


def _verdict(
    claim: Claim, evidence: Evidence, ruling: Ruling, student: Ruling, alpha: float
) -> Verdict:
    mean, low, high = evidence.test.interval
    if claim.kind in ("equivalent", "not_worse"):
        agrees = (abs(mean) if claim.kind == "equivalent" else mean) < claim.threshold
    else:
        agrees = mean > claim.threshold
    p = evidence.test.p_for if agrees else evidence.test.p_against
    p_holm = ruling.holm[0 if agrees else 1] if ruling.holm else None
    reasons = [*evidence.faults, *([ruling.reason] if ruling.reason else [])]
    t_low, t_high = evidence.student.interval[1:]
    if student.word != ruling.word:
        why = student.reason or f"interval {t_low:.3g} to {t_high:.3g}"
        reasons.append(f"Student's t would say {student.word} ({why})")
    yardstick = claim.published_effect if claim.kind == "greater" else claim.threshold
    underpowered = (
        ruling.word == "inconclusive" and yardstick is not None and evidence.detectable > yardstick
    )
    if underpowered:
        what = "the published effect" if claim.kind == "greater" else "the margin"
        reasons.append(
            f"underpowered: detectable {evidence.detectable:.3g} {claim.unit} exceeds {what} of "
            f"{yardstick:.3g} {claim.unit}".rstrip()
        )
    if claim.primary and ruling.word == "inconclusive":
        reasons += filter(None, [would_decide(claim, evidence, alpha)])
    shared = {
        f.name: getattr(claim, f.name)
        for f in dataclasses.fields(Claim)
        if f.name not in ("preconditions", "notes", "values")
    }
    identical = claim.kind == "identical"
    return Verdict(
        **shared,
        verdict=ruling.word,
        mean=mean,
        low=low,
        high=high,
        level=math.nan if identical else interval_level(claim.kind, alpha),
        n=evidence.n,
        sd=evidence.sd,
        p=p,
        p_holm=p_holm,
        detectable=evidence.detectable,
        underpowered=underpowered,
        alpha=alpha,
        t_low=t_low,
        t_high=t_high,
        t_verdict="" if identical else student.word,
        values=dict(sorted(claim.values.items())),
        reasons=(*reasons, *claim.notes),
    )


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
