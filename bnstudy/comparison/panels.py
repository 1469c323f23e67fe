"""What a figure of a comparison shows: the arms' means, and their paired differences."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from bnstudy import figures
from bnstudy.comparison.cells import RATES
from bnstudy.comparison.sheet import short, units
from bnstudy.figures.panel import Curve, Panel
from bnstudy.figures.style import Style
from bnstudy.stats import paired_differences, per_seed

ALIASES = {"filter_response": "frn", "recurrent_batch": "batch"}  # names of norms in figures
MEAN = ("mean", "low", "high")
DIFFERENCE = ("difference", "difference_low", "difference_high")


def panels(comparison: pd.DataFrame, runs: pd.DataFrame) -> list[Panel]:
    """Means and paired differences of a comparison, a pair of panels for each combination.

    comparison: what `compare` made of the runs.
    runs:       the same table, one row per run; its values by seed are dots.
    With one axis arms are rows of dots; else the last axis whose values are numbers (or the last
    one) is the x axis, and every combination of what is left has panels of its own.
    """
    names = list(comparison.columns[: comparison.columns.get_loc("metric")])
    others = names[1:]
    numeric = [name for name in others if pd.api.types.is_numeric_dtype(comparison[name])]
    x = (numeric or others)[-1] if others else ""
    rest = [name for name in others if name != x]
    blocks = comparison.groupby(rest, sort=False, dropna=False) if rest else [((), comparison)]
    found = []
    for point, block in blocks:
        where = dict(zip(rest, point, strict=True))
        found += _pair(block, runs, names[0], x, where)
    return found


def _pair(
    block: pd.DataFrame, runs: pd.DataFrame, arm: str, x: str, where: Mapping[str, Any]
) -> list[Panel]:
    """The panel of means and that of differences at one combination of the other axes."""
    metric = str(block["metric"].iloc[0])
    _, unit, label = units(metric)
    arms = list(block[arm].unique())
    axis: dict[str, Any] = {"kind": "dots"}
    if x:
        numeric = pd.api.types.is_numeric_dtype(block[x]) and (block[x] > 0).all()
        axis = {"x": "log2" if numeric else "names", "xlabel": short(x)}
    place = ", ".join(f"{short(name)}={value}" for name, value in where.items())
    means = [_curve(block, runs, arm, a, x, where, MEAN, i) for i, a in enumerate(arms)]
    gaps = [_curve(block, runs, arm, a, x, where, DIFFERENCE, i)
            for i, a in enumerate(arms) if i]  # fmt: skip
    # a gap between errors can be below zero
    floor, ceiling = (0.0, 100.0) if metric.startswith(RATES) else (None, None)
    found = [Panel(place, means, ylabel=label, floor=floor, ceiling=ceiling, **axis)]
    if gaps:
        more = f"{metric} minus {arms[0]}'s{f' ({unit})' if unit else ''}"
        found.append(Panel(place, gaps, ylabel=more, floor=None, zero=True, **axis))
    return found


def _curve(
    block: pd.DataFrame,
    runs: pd.DataFrame,
    arm: str,
    value: Any,
    x: str,
    where: Mapping[str, Any],
    columns: Sequence[str],
    i: int,
) -> Curve:
    """One arm over x: its means, or its differences to the first arm."""
    metric = str(block["metric"].iloc[0])
    factor = units(metric)[0]
    own = block[block[arm] == value]
    points, dots = [], []
    for _, cell in own.iterrows():
        at = {**where, **({x: cell[x]} if x else {})}
        place = cell[x] if x else 0
        mean, low, high = (factor * cell[column] for column in columns)
        low, high = (low, high) if math.isfinite(high - low) else (math.nan, math.nan)
        points.append({"x": place, "mean": mean, "low": low, "high": high, "n": cell["n"]})
        values = per_seed(runs, metric, {**at, arm: value})
        if columns is DIFFERENCE:
            reference = per_seed(runs, metric, {**at, arm: block[arm].iloc[0]})
            values = paired_differences(values, reference, sorted(values.keys() & reference.keys()))
        dots += [{"x": place, "seed": s, "value": factor * v} for s, v in values.items()]
    return Curve(
        str(value),
        pd.DataFrame(points),
        _style(arm, value, i),
        runs=pd.DataFrame(dots, columns=["x", "seed", "value"]),
    )


def _style(arm: str, value: Any, i: int) -> Style:
    """A norm has its own color; other arms those of the palette, in their order."""
    if short(arm) == "norm":
        return figures.style_of(ALIASES.get(str(value), str(value)))
    return figures.hue(i)
