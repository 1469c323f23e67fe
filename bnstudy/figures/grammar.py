"""Tables to figures: a summarised table goes in, artists come out.

What is left to convert to panels; no new figure should use it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from bnstudy.figures.style import (
    COLUMN_WIDTH,
    MODES,
    PANEL_HEIGHT,
    SERIES,
    STYLES,
    Style,
    style_of,
)

DODGE = 0.05  # octaves between neighbouring curves: an interval's bar is about 0.02 wide


def canvas(columns: int = 1, rows: int = 1, **kwargs: Any) -> tuple[Figure, np.ndarray]:
    """A figure of rows x columns panels, one paper column wide each; kwargs go to `subplots`.

    Returns the figure and its axes, always an array (rows, columns).
    """
    size = (COLUMN_WIDTH * columns, PANEL_HEIGHT * rows + 0.5)  # half an inch for the legend
    figure = Figure(figsize=size, layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False, **kwargs)


def curves(
    ax: Axes,
    summary: pd.DataFrame,
    x: str,
    hue: str = "norm.name",
    *,
    dash: str | None = None,
    norm: str | None = None,
    percent: bool = False,
    log2: bool = True,
    xlabel: str | None = None,
    ylabel: str | None = None,
) -> list[Any]:
    """Means with interval bars against x, one curve per value of `hue` (and of `dash`).

    summary: one row per point with columns x, hue, mean, low, high, as `stats.summarize` gives it;
             a point without interval is drawn without a bar, a missing mean leaves a gap. A column
             `diverged` (number of runs), where there is one, hollows the marker above zero.
    hue:     column of normalization names, which choose color and marker.
    dash:    column of evaluation modes (keys of MODES), which choose the line style.
    norm:    the one normalization of the whole table; color and marker are then its own, and `hue`
             is not read.
    percent: values are fractions and are drawn times 100.
    log2:    x on a log2 axis; tick labels are the values themselves either way. Curves are moved
             aside by a few hundredths of an octave, so that their intervals do not hide each other.
    Returns the ErrorbarContainers, in drawing order. Raises ValueError for a missing column, an
    unknown evaluation mode, two rows for one point, or an x on a log axis that is not above zero.
    """
    keys: dict[str, dict] = ({} if norm else {hue: STYLES}) | ({dash: MODES} if dash else {})
    _check(summary, [x, *keys], log2)
    unknown = set(summary[dash]) - set(MODES) if dash else set()
    if unknown:
        raise ValueError(
            f"unknown evaluation mode {', '.join(map(str, unknown))}. Allowed: {', '.join(MODES)}."
        )
    groups = _groups(summary, keys)
    ticks = np.sort(summary[x].unique().astype(float))
    step = DODGE if log2 else DODGE * float(np.diff(ticks).min(initial=1.0))
    factor = 100.0 if percent else 1.0
    drawn = []
    for i, (key, rows) in enumerate(groups):
        name = norm or key[0]
        mode = MODES[key[-1]] if dash else None
        color, marker, label = style_of(name)
        if mode:
            label = mode.label if norm else f"{label}, {mode.label}"
        rows = rows.sort_values(x)
        offset = (i - (len(groups) - 1) / 2) * step
        where = rows[x].to_numpy(dtype=float)
        where = where * 2**offset if log2 else where + offset
        mean, low, high = (
            factor * rows[column].to_numpy(dtype=float) for column in ("mean", "low", "high")
        )
        mean = np.where(np.isfinite(mean), mean, np.nan)
        bars = np.vstack([mean - low, high - mean])
        container = ax.errorbar(
            where,
            mean,
            yerr=np.where(np.isfinite(bars), bars, np.nan),
            color=color,
            marker=marker,
            linestyle=mode.linestyle if mode else "-",
            fillstyle=mode.fill if mode else "full",
            markerfacecoloralt="white",
            elinewidth=0.9,
            capsize=1.8,
            label=label,
            zorder=3,
        )
        if "diverged" in rows:
            hit = rows["diverged"].to_numpy(dtype=float) > 0
            ax.plot(
                where[hit],
                mean[hit],
                linestyle="none",
                marker=marker,
                markerfacecolor="white",
                markeredgecolor=color,
                zorder=4,
            )
        drawn.append(container)
    batch_axis(ax, ticks, log2)
    ax.set_xlabel(x if xlabel is None else xlabel)
    if ylabel is not None:
        ax.set_ylabel(ylabel)
    return drawn


def series(
    ax: Axes,
    curves: dict[str, pd.DataFrame],
    x: str = "x",
    *,
    percent: bool = False,
    log2: bool | None = True,
    xlabel: str = "",
    ylabel: str = "",
    styles: dict[str, Style] | None = None,
    dashed: Iterable[str] = (),
) -> None:
    """Means with interval bars of named curves that are not normalizations.

    curves: label -> rows with columns x, mean, low, high. log2: a log2 axis, a linear one with
    ticks where the values are (False), or a linear one with matplotlib's ticks (None). styles:
    color, marker and label of curves that are normalizations after all; dashed: names of curves
    that are drawn dashed and hollow.
    """
    factor = 100.0 if percent else 1.0
    ticks: set[float] = set()
    for i, (name, rows) in enumerate(curves.items()):
        color, marker = SERIES[i % len(SERIES)]
        label = name
        if styles and name in styles:
            color, marker, label = styles[name]
        rows = rows.sort_values(x)
        where = rows[x].to_numpy(dtype=float)
        ticks |= set(where)
        if log2:
            where = where * 2 ** ((i - (len(curves) - 1) / 2) * DODGE)
        mean, low, high = (factor * rows[c].to_numpy(dtype=float) for c in ("mean", "low", "high"))
        bars = np.vstack([mean - low, high - mean])
        ax.errorbar(where, mean, yerr=np.where(np.isfinite(bars), bars, np.nan), color=color,
                    marker=marker, label=label, elinewidth=0.9, capsize=1.8, zorder=3,
                    linestyle=(0, (4, 1.5)) if name in dashed else "-",
                    fillstyle="none" if name in dashed else "full")  # fmt: skip
    if log2 is not None:
        batch_axis(ax, sorted(ticks), log2)
    ax.set_xlabel(xlabel)
    ax.set_ylabel(ylabel)


def legend(figure: Figure, axes: Iterable[Axes] | None = None, columns: int | None = None) -> Any:
    """One legend above all panels; a label that occurs in several panels is listed once."""
    entries: dict[str, Any] = {}
    for ax in figure.axes if axes is None else axes:
        for handle, label in zip(*ax.get_legend_handles_labels(), strict=True):
            entries.setdefault(label, handle)
    if not entries:
        return None
    order = {entry.label: i for i, entry in enumerate(STYLES.values())}
    labels = sorted(entries, key=lambda text: order.get(text, len(order)))  # stable
    return figure.legend(
        [entries[text] for text in labels],
        labels,
        loc="outside upper center",
        ncols=columns or min(len(labels), max(2, round(figure.get_size_inches()[0] / 1.3))),
    )


def _check(summary: pd.DataFrame, keys: list[str], log2: bool) -> None:
    missing = [c for c in (*keys, "mean", "low", "high") if c not in summary]
    if missing:
        raise ValueError(
            f"the summary has no column {', '.join(missing)}; "
            f"it has {', '.join(map(str, summary))}."
        )
    if summary.duplicated(keys).any():
        raise ValueError(
            f"several rows for one point of ({', '.join(keys)}): curves draw summarised tables."
        )
    if log2 and not (summary[keys[0]].astype(float) > 0).all():
        raise ValueError(f"{keys[0]} must be above zero on a log axis (or pass log2=False).")


def _groups(summary: pd.DataFrame, keys: dict[str, dict]) -> list[tuple[tuple, pd.DataFrame]]:
    """The curves in the order of the known names: a shuffled table draws the same figure."""
    if not keys:
        return [((), summary)]

    def rank(group: tuple[tuple, pd.DataFrame]) -> list[tuple[float, str]]:
        orders = [{name: float(i) for i, name in enumerate(known)} for known in keys.values()]
        pairs = zip(group[0], orders, strict=True)
        return [(order.get(name, math.inf), str(name)) for name, order in pairs]

    return sorted(summary.groupby(list(keys), sort=False), key=rank)


def error_axis(ax: Axes) -> None:
    """Errors in percent on a log axis with plain numbers, so that small and large ones are seen."""
    ax.set_yscale("log", nonpositive="clip")
    low, high = ax.get_ylim()
    ticks = [t for t in (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 90) if low <= t <= high]
    ax.yaxis.set_major_locator(FixedLocator(ticks))
    ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    ax.yaxis.set_minor_locator(NullLocator())


def batch_axis(ax: Axes, ticks: Sequence[float] | np.ndarray, log2: bool = True) -> None:
    """Plain numbers on a log2 (or linear) x axis, one tick for each value that occurs."""
    # several calls may share a panel: keep the ticks that the earlier ones put there
    ticks = np.asarray(ticks, dtype=float)
    earlier = ax.xaxis.get_major_locator()
    if isinstance(earlier, FixedLocator):
        ticks = np.union1d(ticks, earlier.tick_values(0, 1))
    if log2:
        ax.set_xscale("log", base=2)
        ax.xaxis.set_minor_locator(NullLocator())
    ax.xaxis.set_major_locator(FixedLocator(ticks.tolist()))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
