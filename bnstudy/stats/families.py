"""Claims that share an error rate: one primary, a fixed sequence behind it, and a Holm family."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from bnstudy.errors import did_you_mean
from bnstudy.stats.evidence import Evidence, Test

if TYPE_CHECKING:
    from bnstudy.stats.verdicts import Claim

UNCOUNTED = ("identical", "demonstration")
"""Kinds that no chance decides: they belong to no family and are not counted as verdicts."""
DECIDED = ("supported", "refuted")


def check(claims: Sequence[Claim]) -> None:
    """Raises ValueError unless one claim is primary, names differ and `after` makes one sequence.

    No claim need be primary where all are of an uncounted kind.
    """
    names = [claim.name for claim in claims]
    if len(set(names)) < len(names):
        raise ValueError(f"claims need different names: {', '.join(names)}.")
    primaries = [claim.name for claim in claims if claim.primary]
    counted = [claim for claim in claims if claim.kind not in UNCOUNTED]
    if len(primaries) > 1 or (not primaries and (counted or not claims)):
        raise ValueError(
            f"a study has exactly one primary claim, got {len(primaries)}"
            f"{': ' + ', '.join(primaries) if primaries else ''}."
        )
    known = [claim.name for claim in counted]
    for claim in counted:
        if claim.after and claim.after not in known:
            raise ValueError(
                f"claim '{claim.name}' comes after '{claim.after}', which is no claim that can "
                f"be decided.{did_you_mean(claim.after, known)} Allowed: {', '.join(known)}."
            )
        followers = [other.name for other in counted if other.after == claim.name]
        if len(followers) > 1:
            raise ValueError(
                f"claims {', '.join(followers)} all come after '{claim.name}'; in a fixed sequence "
                "a claim has one successor."
            )
    outside = [c.name for c in counted if c.after and c not in sequence(claims)]
    if outside:
        raise ValueError(
            f"claims {', '.join(outside)} are in no sequence that starts at the primary claim "
            f"'{primaries[0]}'."
        )


def sequence(claims: Sequence[Claim]) -> list[Claim]:
    """The primary claim and those that follow it, in the order in which they are judged."""
    chain = [claim for claim in claims if claim.primary]
    while chain:
        following = [claim for claim in claims if claim.after == chain[-1].name]
        if not following:
            break
        chain.append(following[0])
    return chain


class Ruling(NamedTuple):
    """A verdict, the Holm-adjusted p for and against, and the reason where there is one."""

    word: str
    holm: tuple[float, float] | None = None
    reason: str = ""


def rule(
    claims: list[Claim], evidence: list[Evidence], tests: list[Test], alpha: float
) -> list[Ruling]:
    """The rulings by one method: each claim alone, then Holm's family, then the sequence."""
    rows = list(zip(claims, evidence, tests, strict=True))
    rulings = {claim.name: _alone(claim, e, test, alpha) for claim, e, test in rows}
    chain = sequence(claims)
    family = [
        # an invalid claim is evidence of nothing, however small its own p
        (claim.name, (1.0, 1.0) if e.faults else (test.p_for, test.p_against))
        for claim, e, test in rows
        if claim not in chain and claim.kind not in UNCOUNTED
    ]
    sides = [_holm([p[side] for _, p in family]) for side in (0, 1)]
    for (name, p), *adjusted in zip(family, *sides, strict=True):
        rulings[name] = _adjust(rulings[name], p, (adjusted[0], adjusted[1]), alpha)

    ended = ""
    for claim in chain:
        word = rulings[claim.name].word
        if ended and word != "invalid":
            alone = f": the interval alone says {word}" if word in DECIDED else ""
            reason = f"the sequence ended at '{ended}'{alone}"
            rulings[claim.name] = Ruling("inconclusive", None, reason)
        elif word not in DECIDED:
            ended = ended or claim.name
    return [rulings[claim.name] for claim in claims]


def _adjust(
    ruling: Ruling, p: tuple[float, float], adjusted: tuple[float, float], alpha: float
) -> Ruling:
    """The ruling that is left after Holm's adjustment of its p-values for and against."""
    if ruling.word in DECIDED:
        side = DECIDED.index(ruling.word)
        if adjusted[side] > alpha:
            reason = (
                f"the interval alone says {ruling.word}, Holm's adjustment does not: "
                f"p {p[side]:.2g} becomes {adjusted[side]:.2g}"
            )
            return Ruling("inconclusive", adjusted, reason)
    return ruling._replace(holm=adjusted)


def _alone(claim: Claim, evidence: Evidence, test: Test, alpha: float) -> Ruling:
    """The ruling on a claim as if it were the only one."""
    if evidence.faults:
        return Ruling("invalid")
    if claim.kind == "identical":
        if not evidence.unequal:
            return Ruling("true")
        return Ruling("false", None, f"runs differ at seed {', '.join(map(str, evidence.unequal))}")
    word, reason = "inconclusive", ""
    if math.isnan(test.p_for):
        reason = f"all {evidence.n} seeds give the same value: without spread nothing is tested"
    elif test.p_for <= alpha:
        word = "supported"
    elif test.p_against <= alpha:
        word = "refuted"
    if claim.kind == "demonstration":
        word = "shown" if word == "supported" else "not shown"
    return Ruling(word, None, reason)


def _holm(p: Sequence[float]) -> list[float]:
    """Adjusted p-values of a family (Holm 1979, Scand. J. Statist. 6, 65-70); NaN counts as 1."""
    given = np.nan_to_num(np.array(p, dtype=float), nan=1.0)
    order = np.argsort(given)
    steps = given[order] * np.arange(len(given), 0, -1)  # the smallest times n, the next times n-1
    adjusted = np.empty_like(given)
    adjusted[order] = np.minimum(np.maximum.accumulate(steps), 1.0)
    return [float(q) for q in adjusted]
