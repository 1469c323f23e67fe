"""What a figure shows, as data: panels of curves. `draw` makes artists of them.

A study says which rows stand where and what they are called; color, marker, direct labels, limits
and fonts follow from that. The same panels give the same bytes, the CSV beside a figure and its
alternative text.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import pandas as pd

from bnstudy.figures.style import Style

Source = Literal["measured", "published", "digitised", "unconfirmed", "predicted"]
Kind = Literal["curves", "dots", "scatter"]
Scale = Literal["log2", "log10", "linear", "names"]
COLUMNS = ("x", "mean", "low", "high")  # that the points of a curve have


@dataclass(frozen=True, eq=False)  # tables have no single answer to ==
class Curve:
    """One arm of a panel.

    label:  what stands beside it.
    points: a row per x with columns x, mean, low, high (NaN where unknown), in the unit of the
            axis; `n` and `diverged` where known.
    style:  color and marker: `style_of` for a normalization, `hue` or `ramp` for the rest.
    mode:   key of MODES, the source of statistics, which chooses the line.
    runs:   a row per run with columns x, seed, value, in the unit of the axis; None: no dots.
    source: others' numbers and what theory predicts are drawn hollow and dashed, without bars, and
            are said to be so.
    """

    label: str
    points: pd.DataFrame
    style: Style
    mode: str = "population"
    runs: pd.DataFrame | None = None
    source: Source = "measured"


@dataclass(frozen=True)
class Band:
    """A region of y or a line across the panel: a margin of equivalence, a threshold, a theory."""

    low: float
    high: float  # the same as low: a line
    label: str = ""


@dataclass(frozen=True, eq=False)
class Panel:
    """One set of axes.

    title:   the subject, such as "contrast digits, ResNet".
    curves:  arms over x, or with kind "dots" one dot and interval each, in rows from the top down:
             x of the points is then ignored and the axis of values is horizontal.
             "scatter": every point is a run's, at its own x, and no line joins them.
    xlabel, ylabel: with units; ylabel names the values in both kinds.
    x:       scale of the x axis; "names": x are words, in the order of their first occurrence.
    y:       scale of the values.
    floor, ceiling: the values' possible range: 0 and 100 for an error in percent. The axis begins
             at a floor of 0, and nothing is drawn beyond either: intervals are cut off there, and a
             mean or a run that lies beyond is refused.
    zero:    whether the line of no difference is drawn: then values are differences, and a floor
             of 0 does not hold.
    bands:   what to compare with.
    claim:   name of the claim that the panel shows: its verdict is written below the title.
    """

    title: str
    curves: Sequence[Curve]
    xlabel: str = ""
    ylabel: str = "test error (%)"
    kind: Kind = "curves"
    x: Scale = "log2"
    y: Literal["linear", "log10"] = "linear"
    floor: float | None = 0.0
    ceiling: float | None = None
    zero: bool = False
    bands: Sequence[Band] = field(default=())
    claim: str = ""

    @property
    def bounds(self) -> tuple[float, float]:
        """Floor and ceiling; infinite where there is none."""
        floor = None if self.zero and self.floor == 0 else self.floor
        low = -math.inf if floor is None else floor
        return low, math.inf if self.ceiling is None else self.ceiling
