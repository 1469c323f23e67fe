"""The forest plot: every primary claim's mean and interval on one axis for each unit.

Its places are percent of the axis' width: the page draws them with boxes, which follow the
reader's width, colors and paper.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from bnstudy.report import words

POINTS = "pp"  # the first strip; claims in other units follow in strips of their own
UNITS = {"pp": "percentage points"}


@dataclass(frozen=True)
class Row:
    """One primary claim; places in percent of the axis, None where there is no number.

    kind:   of the claim: equivalence has a margin on both sides of zero.
    margin: (left, width) of the region that the claim allows or the threshold: an interval inside
            supports an equivalence; one to the right of the line supports `greater`.
    """

    claim: dict[str, Any]
    kind: str
    mean: float | None
    interval: tuple[float, float] | None  # left, width
    published: float | None
    margin: tuple[float, float] | None


@dataclass(frozen=True)
class Strip:
    """The rows of one unit and their axis: ticks are (place, label), zero its place."""

    unit: str
    rows: list[tuple[Any, Row]]
    ticks: list[tuple[float, str]]
    zero: float


def strips(claims: Sequence[tuple[Any, dict[str, Any]]]) -> list[Strip]:
    """One strip for each unit, percentage points first, the largest effect on top.

    claims: what a row leads to, and its primary claim.
    """
    units = {words.unit_of(claim) for _, claim in claims}
    return [
        _strip(unit, [(to, claim) for to, claim in claims if words.unit_of(claim) == unit])
        for unit in sorted(units, key=lambda unit: (unit != POINTS, unit))
    ]


def _strip(unit: str, claims: list[tuple[Any, dict[str, Any]]]) -> Strip:
    drawn = [number for _, claim in claims for number in _numbers(claim) if number is not None]
    low, high = min([*drawn, 0.0]), max([*drawn, 0.0])
    pad = 0.03 * (high - low) or 1.0
    low, high = low - pad, high + pad
    ticks = nice(low, high)

    def place(value: float) -> float:
        return 100 * (value - low) / (high - low)

    decimals = max(0, -math.floor(math.log10(ticks[1] - ticks[0]) + 1e-9))
    return Strip(
        UNITS.get(unit, unit),
        [(to, _row(claim, place)) for to, claim in sorted(claims, key=_largest_first)],
        [(place(t), f"{t + 0.0:.{decimals}f}".replace("-", "\N{MINUS SIGN}")) for t in ticks],
        place(0.0),
    )


def _row(claim: dict[str, Any], place: Any) -> Row:
    mean, low, high, published = _numbers(claim)[:4]
    known = low is not None and high is not None
    return Row(
        claim,
        words.plain(claim.get("kind")),
        None if mean is None else place(mean),
        (place(low), place(high) - place(low)) if known else None,
        None if published is None else place(published),
        _margin(claim, place),
    )


def _margin(claim: dict[str, Any], place: Any) -> tuple[float, float] | None:
    limit = words.finite(claim.get("threshold"))
    if not limit:  # a threshold of zero is the line of zero
        return None
    left = -limit if claim.get("kind") == "equivalent" else 0.0
    return place(min(left, limit)), abs(place(limit) - place(left))


def _numbers(claim: dict[str, Any]) -> list[float | None]:
    """What stands on the axis: mean, interval, published effect, threshold or margin."""
    limit = words.finite(claim.get("threshold"))
    other = -limit if limit is not None and claim.get("kind") == "equivalent" else None
    return [*words.span(claim), words.finite(claim.get("published_effect")), limit, other]


def _largest_first(row: tuple[Any, dict[str, Any]]) -> tuple[float, str]:
    mean = words.finite(row[1].get("mean"))
    return (math.inf if mean is None else -mean, words.plain(row[1].get("name")))


def nice(low: float, high: float, most: int = 5) -> list[float]:
    """Round numbers from low to high, two to `most` + 1: steps of 1, 2 or 5 times 10^k."""
    base = 10.0 ** math.floor(math.log10((high - low) / most))
    step = next(s for s in (base, 2 * base, 5 * base, 10 * base) if (high - low) / s <= most)
    return [k * step for k in range(math.ceil(low / step), math.floor(high / step) + 1)]
