"""Numbers as people read them: as many decimals as their interval makes worth printing."""

import math

MINUS = "\N{MINUS SIGN}"
ABSENT = "?"
UNMEASURED = "not measured"


def decimals(low: float | None, high: float | None, most: int = 6) -> int:
    """The decimals that two significant digits of an interval's half-width need.

    The same for the mean, both ends and whatever is compared with them; 1 where there is no
    interval, `most` at most.
    """
    width = math.nan if low is None or high is None else (high - low) / 2
    if not math.isfinite(width) or width <= 0:
        return 1
    return min(most, max(0, 1 - math.floor(math.log10(float(f"{width:.1e}")))))


def fixed(value: float | None, places: int, signed: bool = False) -> str:
    """A number with this many decimals; `?` where there is none. Zero has no sign of a minus."""
    if value is None or not math.isfinite(value):
        return ABSENT
    text = f"{round(value, places) + 0.0:{'+' if signed else ''}.{places}f}"
    return text.replace("-", MINUS)


def estimate(
    mean: float | None, low: float | None, high: float | None, unit: str = "", signed: bool = True
) -> str:
    """`+5.1 pp [2.4, 7.8]`: mean, unit and interval, all with the interval's decimals.

    `not measured` where there is no mean.
    """
    if mean is None or not math.isfinite(mean):
        return UNMEASURED
    if low is None or high is None:
        places = decimals(0, abs(mean))
        return f"{fixed(mean, places, signed)} {unit}".rstrip()
    places = decimals(low, high)
    ends = f"[{fixed(low, places)}, {fixed(high, places)}]"
    return " ".join(part for part in (fixed(mean, places, signed), unit, ends) if part)
