"""One panel as artists: curves over x, or dots with intervals; limits that the values can have."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import to_hex, to_rgb
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from bnstudy.figures.lines import folded, number_of
from bnstudy.figures.panel import COLUMNS, Curve, Panel
from bnstudy.figures.style import MODES
from bnstudy.numbers import ABSENT, MINUS, estimate

LANES = 0.4  # of the distance between neighbouring x: curves stand beside each other within it
LANE = 0.16  # of that distance, at most, for one curve
DENSE = 16  # points of a curve from which intervals are an area and most markers are left out
ROW_WIDTH = 15.0  # type sizes of the text above a dot, at most
MANY = 10  # values of x, from which ticks stand at round numbers instead
GREY = "#666666"
OTHERS = (0, (2, 1.5))  # line of others' numbers
# behind text on a panel: lines stop there, dots do not
CLEAR: dict[str, Any] = {"zorder": 1.9, "bbox": {"facecolor": "white", "edgecolor": "none",
                                                 "alpha": 0.8, "pad": 0.8}}  # fmt: skip
# ticks of a logarithmic axis within a power of ten: the first that gives three of them
TICKS = ((1,), (1, 2, 5), (1, 1.5, 2, 3, 4, 5, 6, 7, 8, 9))
BASE = {"log2": 2.0, "log10": 10.0}


@dataclass(frozen=True)
class Name:
    """What stands beside a curve or a band: at which point, in what color."""

    text: str
    x: float  # of the last point; NaN for a band
    y: float
    color: str
    marker: dict[str, Any]  # as `Axes.plot` takes it; empty for a band
    line: Any = "-"


class Places:
    """Where the x of a panel lie; `u` is the axis on which neighbours are equally far apart."""

    def __init__(self, panel: Panel) -> None:
        self.scale = panel.x
        every = [x for curve in panel.curves for x in curve.points["x"]]
        self.words = list(dict.fromkeys(every)) if panel.x == "names" else []
        if panel.x in BASE and not all(float(x) > 0 for x in every):
            raise ValueError(f"panel '{panel.title}': x must be above zero on a {panel.x} axis")
        self.values = sorted({self.value(x) for x in every})
        self.u = [self.place(value) for value in self.values]
        wide = self.u[-1] - self.u[0] if self.u else 0.0
        # two places are as far apart as the panel is wide: their curves stay closer together
        self.gap = min(float(np.diff(self.u).min()), wide / 3) if wide else 1.0

    def value(self, x: Any) -> float:
        """x as a number: of words, their place."""
        return float(self.words.index(x)) if self.words else float(x)

    def place(self, value: float) -> float:
        """The place on u of a number."""
        base = BASE.get(self.scale)
        return math.log(value) / math.log(base) if base else value

    def at(self, xs: Any, aside: Any = 0.0) -> np.ndarray:
        """x, moved aside by parts of the smallest distance on u, as the axis takes it."""
        moved = np.array([self.place(self.value(x)) for x in xs]) + np.asarray(aside) * self.gap
        base = BASE.get(self.scale)
        return np.asarray(base**moved if base else moved)

    def text(self, value: float) -> str:
        """The label of a tick."""
        return str(self.words[round(value)]) if self.words else plain(value)


def onto(ax: Axes, panel: Panel) -> list[Name]:
    """Draw a panel; what is to stand beside its curves.

    Raises ValueError for points without their columns, for a mean or a run beyond floor or ceiling,
    for an x that is not above zero on a log axis, and for dots of several points.
    """
    for curve in panel.curves:
        _check(panel, curve)
    return _dots(ax, panel) if panel.kind == "dots" else _curves(ax, panel)


def label_of(curve: Curve) -> str:
    """A curve's label; others' numbers say what they are."""
    return curve.label if curve.source == "measured" else f"{curve.label} ({curve.source})"


def ink(color: str) -> str:
    """A color for text on white: darkened until its contrast is 4.5 (WCAG 2, level AA)."""
    rgb = np.array(to_rgb(color))
    while 1.05 / (_luminance(rgb) + 0.05) < 4.5:
        rgb = rgb * 0.95
    return to_hex(tuple(rgb.tolist()))


def plain(value: float) -> str:
    """A number on an axis: 0.05, 1000; powers of ten where it is very small or large."""
    if value and not 1e-4 <= abs(value) < 1e6:
        power = math.floor(math.log10(abs(value)))
        raised = str(power).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
        digits = f"{value / 10.0**power:.3g}"
        return f"10{raised}" if digits == "1" else f"{digits}×10{raised}".replace("-", MINUS)
    return f"{value:.6g}".replace("-", MINUS)


def _luminance(rgb: np.ndarray) -> float:
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])


def _check(panel: Panel, curve: Curve) -> None:
    where = f"panel '{panel.title}', curve '{curve.label}'"
    missing = [name for name in COLUMNS if name not in curve.points]
    if missing:
        raise ValueError(f"{where}: its points have no column {', '.join(missing)}")
    if panel.kind == "dots" and len(curve.points) != 1:
        raise ValueError(f"{where}: a dot is one point, and it has {len(curve.points)}")
    low, high = panel.bounds
    runs = [] if curve.runs is None else curve.runs["value"]
    shown = pd.concat([curve.points["mean"], pd.Series(runs, dtype=float)]).dropna()
    outside = shown[(shown < low - 1e-9) | (shown > high + 1e-9)]
    if len(outside):
        raise ValueError(f"{where}: {outside.iloc[0]:g} lies outside of {low:g} to {high:g}")


# --- curves --------------------------------------------------------------------------------------


def _curves(ax: Axes, panel: Panel) -> list[Name]:
    places = Places(panel)
    lanes = [curve for curve in panel.curves if curve.source == "measured"]
    apart = panel.kind == "scatter"
    width = min(LANE, LANES / max(len(lanes), 1)) if len(lanes) > 1 and not apart else 0.0
    names = [
        Name(b.label, math.nan, (b.low + b.high) / 2, GREY, {}, (0, (4, 2))) for b in panel.bands
    ]
    _behind(ax, panel, ax.axhline, ax.axhspan)
    if panel.y == "log10":
        ax.set_yscale("log")
    bottom, top = span(panel)
    for curve in panel.curves:
        aside = (lanes.index(curve) - (len(lanes) - 1) / 2) * width if curve in lanes else 0.0
        own = curve.points.assign(_x=[places.place(places.value(x)) for x in curve.points["x"]])
        own = own.sort_values("_x")
        where, mean = places.at(own["x"], aside), own["mean"].to_numpy(dtype=float)
        color, marker = curve.style.color, _marker(curve)
        every = max(1, len(own) // 8) if len(own) >= DENSE and not apart else 1
        line = OTHERS if curve.source != "measured" else MODES[curve.mode].linestyle
        if places.words or apart:  # between words, and between runs, there is nothing
            line = "none"
        ax.plot(where, _inside(mean, bottom, top), color=color, linestyle=line, zorder=4,
                markevery=every, clip_on=False, **marker)  # fmt: skip
        if curve.source == "measured":
            _spread(ax, curve, where, own, (bottom, top), dense=every > 1)
            _seeds(ax, curve, places, aside, width or LANE)
        _cross(ax, own, where, mean)
        known = np.flatnonzero(np.isfinite(mean))
        if len(known):
            last = known[-1]
            names.append(Name(label_of(curve), where[last], mean[last], color, marker, line))
    _x_axis(ax, panel, places)
    _value_axis(ax.yaxis, panel, (bottom, top))
    ax.set_ylim(bottom, top)
    ax.set_xlabel(panel.xlabel)
    ax.set_ylabel(panel.ylabel)
    return names


def _marker(curve: Curve) -> dict[str, Any]:
    """A curve's marker: hollow for others' numbers, filled as the mode says otherwise."""
    fill = MODES[curve.mode].fill
    hollow = curve.source != "measured" or fill == "none"
    return {
        "marker": curve.style.marker,
        "markerfacecolor": "white" if hollow else curve.style.color,
        "markeredgecolor": curve.style.color,
        "fillstyle": "full" if hollow else fill,
        "markerfacecoloralt": "white",
    }


def _spread(
    ax: Axes, curve: Curve, where: np.ndarray, own: pd.DataFrame, limits: tuple[float, float],
    dense: bool,
) -> None:  # fmt: skip
    """The intervals: bars, or an area where the points are many; within the limits."""
    mean, low, high = (own[name].to_numpy(dtype=float) for name in ("mean", "low", "high"))
    known = np.isfinite(mean) & np.isfinite(low) & np.isfinite(high)
    low, high = (_inside(end, *limits) for end in (low, high))
    if dense:
        ax.fill_between(where, low, high, where=known, color=curve.style.color, alpha=0.2,
                        linewidth=0, zorder=1.5)  # fmt: skip
    elif known.any():
        mean = _inside(mean, *limits)
        ends = [(mean - low)[known], (high - mean)[known]]
        ax.errorbar(where[known], mean[known], yerr=ends, fmt="none", ecolor=curve.style.color,
                    elinewidth=_thin(), capsize=2, zorder=3, clip_on=False)  # fmt: skip


def _seeds(ax: Axes, curve: Curve, places: Places, aside: float, width: float) -> None:
    """A dot for each run; a seed has the same place at every x."""
    if curve.runs is None or curve.runs.empty:
        return
    runs = curve.runs
    seeds = sorted(runs["seed"].unique())
    place = dict(zip(seeds, np.linspace(-0.42, 0.42, len(seeds)) * width, strict=True))
    where = places.at(runs["x"], aside + runs["seed"].map(place).to_numpy(dtype=float))
    ax.plot(where, runs["value"], ".", color=curve.style.color, **_dot())


def _dot() -> dict[str, Any]:
    size = 0.7 * matplotlib.rcParams["lines.markersize"]
    return {"alpha": 0.4, "markersize": size, "markeredgewidth": 0, "zorder": 2, "clip_on": False}


def _thin() -> float:
    """Width of an interval's bar, in points."""
    return 0.65 * float(matplotlib.rcParams["lines.linewidth"])


def _cross(ax: Axes, own: pd.DataFrame, where: np.ndarray, mean: np.ndarray) -> None:
    """A cross through the means of which some runs diverged."""
    if "diverged" in own:
        hit = own["diverged"].to_numpy(dtype=float) > 0
        if hit.any():  # an empty line would lie at the figure's corner and spoil its layout
            ax.plot(where[hit], mean[hit], "x", color="black", zorder=5, clip_on=False)


# --- dots ----------------------------------------------------------------------------------------


def _dots(ax: Axes, panel: Panel) -> list[Name]:
    """One row for each curve: its name and number, and below them dot, interval and seeds.

    The vertical axis counts lines of text, from the top down.
    """
    _behind(ax, panel, ax.axvline, ax.axvspan)
    if panel.y == "log10":
        ax.set_xscale("log")
    limits = span(panel)
    down = 1.2 if any(band.label for band in panel.bands) else 0.0
    for band in panel.bands:
        ax.text((band.low + band.high) / 2, 0.5, band.label, color=GREY, ha="center", va="center",
                **CLEAR)  # fmt: skip
    for curve in panel.curves:
        text = folded(f"{label_of(curve)}: {_number(curve, panel)}", ROW_WIDTH * _size())
        down += number_of(text) + 0.7
        _row(ax, curve, text, down, limits)
        down += 0.7
    ax.set_ylim(down, 0)
    ax.set_yticks([])
    ax.spines["left"].set_visible(False)
    _value_axis(ax.xaxis, panel, limits)
    ax.set_xlim(*limits)
    ax.set_xlabel(panel.ylabel)
    return []


def _number(curve: Curve, panel: Panel) -> str:
    """Mean and interval of a dot; of others' numbers the mean as it is."""
    mean, low, high = (float(curve.points[column].iloc[0]) for column in ("mean", "low", "high"))
    if curve.source == "measured" and math.isfinite(low + high):
        return estimate(mean, low, high, signed=panel.zero)
    if not math.isfinite(mean):
        return ABSENT
    return ("+" if panel.zero and mean > 0 else "") + plain(float(f"{mean:.4g}"))


def _row(ax: Axes, curve: Curve, text: str, y: float, limits: tuple[float, float]) -> None:
    mean, low, high = (float(curve.points[column].iloc[0]) for column in ("mean", "low", "high"))
    measured, color = curve.source == "measured", curve.style.color
    if math.isfinite(mean):
        size = 1.3 * matplotlib.rcParams["lines.markersize"]
        ax.plot(mean, y, color=color, linestyle="none", markersize=size, zorder=4, clip_on=False,
                **_marker(curve))  # fmt: skip
    if measured and math.isfinite(low + high):
        ends = _inside(np.array([low, high]), *limits)
        ax.plot(ends, [y, y], color=color, marker="|", zorder=3, clip_on=False)
    if measured and curve.runs is not None and len(curve.runs):
        values = curve.runs.sort_values("seed")["value"]
        ax.plot(values, y + np.linspace(-0.4, 0.4, len(values)), ".", color=color, **_dot())
    ax.annotate(text, (0, y), (0, 0.6 * _size()), xycoords=ax.get_yaxis_transform(), va="bottom",
                textcoords="offset points", color=ink(color), linespacing=1.1, **CLEAR,
                annotation_clip=False)  # fmt: skip


def _size() -> float:
    return float(matplotlib.rcParams["font.size"])


# --- both ----------------------------------------------------------------------------------------


def span(panel: Panel) -> tuple[float, float]:
    """Where the axis of the values begins and ends: from zero where that is the floor."""
    floor, ceiling = panel.bounds
    shown: list[float] = [end for band in panel.bands for end in (band.low, band.high)]
    for curve in panel.curves:
        measured = curve.source == "measured"
        for name in ("mean", "low", "high") if measured else ("mean",):
            shown += [float(v) for v in curve.points[name]]
        if measured and curve.runs is not None:
            shown += [float(v) for v in curve.runs["value"]]
    shown = [min(max(v, floor), ceiling) for v in shown if math.isfinite(v)]
    if panel.y == "log10":
        means = [float(v) for c in panel.curves for v in c.points["mean"] if v > 0]
        shown = [v for v in shown if v >= 0.1 * min(means, default=1.0)] or [1.0]
        return min(shown) / 1.25, min(max(shown) * 1.25, ceiling)
    if panel.zero:
        shown.append(0.0)
    low, high = (min(shown), max(shown)) if shown else (0.0, 1.0)
    room = 0.06 * ((high - min(low, 0.0) if floor == 0 else high - low) or 1.0)
    return (0.0 if floor == 0 else max(low - room, floor)), min(high + room, ceiling)


def _inside(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """Values within the axis; unknown ones stay unknown."""
    return np.where(np.isfinite(values), np.clip(values, low, high), np.nan)


def _behind(ax: Axes, panel: Panel, line: Any, area: Any) -> None:
    """Bands, and the line of no difference."""
    for band in panel.bands:
        if band.low == band.high:
            line(band.low, color=GREY, linestyle=(0, (4, 2)), linewidth=_thin(), zorder=1.2)
        else:
            area(band.low, band.high, color="#ececec", linewidth=0, zorder=0.5)
    if panel.zero:
        line(0, color="black", linewidth=_thin(), zorder=1.3)


def _x_axis(ax: Axes, panel: Panel, places: Places) -> None:
    if panel.x in BASE:
        ax.set_xscale("log", base=BASE[panel.x])
        ax.xaxis.set_minor_locator(NullLocator())
    if panel.kind == "scatter":
        if panel.x in BASE and places.values:
            _decimal_ticks(ax.xaxis, (places.values[0], places.values[-1]))
    elif places.words or len(places.values) <= MANY:
        ax.xaxis.set_major_locator(FixedLocator(places.values))
    elif panel.x in BASE:
        ax.xaxis.set_major_locator(FixedLocator(_round_ticks(panel.x, places.values)))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: places.text(value)))
    if places.values:
        wide = places.u[-1] - places.u[0]
        room = max(0.05 * wide, 0.6 * LANES * places.gap)
        ends = np.array([places.u[0] - room, places.u[-1] + room])
        base = BASE.get(panel.x)
        ax.set_xlim(*(base**ends if base else ends))


def _round_ticks(scale: str, values: Sequence[float]) -> list[float]:
    """Powers of two, or 1, 2, 5 times powers of ten, between the first and the last of many x."""
    powers = range(math.floor(math.log(values[0], BASE[scale])),
                   math.ceil(math.log(values[-1], BASE[scale])) + 1)  # fmt: skip
    every = [step * BASE[scale] ** power for power in powers
             for step in ((1,) if scale == "log2" else (1, 2, 5))]  # fmt: skip
    return [tick for tick in every if values[0] <= tick <= values[-1]]


def _value_axis(axis: Any, panel: Panel, limits: Sequence[float]) -> None:
    """Plain numbers on the axis of the values."""
    axis.set_major_formatter(FuncFormatter(lambda value, _: plain(value)))
    if panel.y == "log10":
        _decimal_ticks(axis, limits)


def _decimal_ticks(axis: Any, limits: Sequence[float]) -> None:
    """Of a logarithmic axis: few round numbers within its limits."""
    first, last = (math.floor(math.log10(end)) for end in limits)
    ticks: list[float] = []
    for steps in TICKS:
        every = [step * 10.0**power for power in range(first, last + 1) for step in steps]
        ticks = [tick for tick in every if limits[0] <= tick <= limits[1]]
        if len(ticks) > 2:
            break
    axis.set_major_locator(FixedLocator(ticks))
    axis.set_minor_locator(NullLocator())
