"""The one figure that answers a study's question: three panels at most, direct labels, seed dots.

As wide as a page; names stand beside their curves, so that nobody has to look a color up.
"""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bnstudy.figures.grammar import batch_axis
from bnstudy.figures.style import MODES, style_of

WIDTH, HEIGHT = 8.5, 3.2  # inches
TEXT = 9.0  # points
APART = 0.065  # of the axis: names that are closer than this are moved
SPREAD = 0.16  # octaves over which the dots of the seeds are spread


def page(panels: int) -> tuple[Figure, np.ndarray]:
    """A figure of panels side by side, as wide as a page.

    Returns the figure and its axes, an array (1, panels).
    """
    figure = Figure(figsize=(WIDTH, HEIGHT), layout="constrained")
    return figure, figure.subplots(1, panels, squeeze=False)


class Lines:
    """Curves over a log2 axis in one panel; `finish` writes their names beside them."""

    def __init__(self, ax: Axes) -> None:
        self.ax = ax
        self.ends: list[tuple[float, str, Any]] = []  # last mean, name, color
        self.ticks: set[float] = set()

    def draw(
        self,
        summary: pd.DataFrame,
        runs: pd.DataFrame | None,
        x: str,
        norm: str,
        *,
        metric: str = "",
        mode: str = "population",
        label: str = "",
        percent: bool = True,
    ) -> None:
        """The means of one arm with bars of their intervals, and a dot for each run.

        summary: rows of x, mean, low, high; low and high may be unknown (NaN).
        runs:    one row per run with x, seed and `metric`; None draws no dots.
        mode:    key of MODES, which chooses the line.
        percent: values are fractions and are drawn times 100.
        """
        factor = 100.0 if percent else 1.0
        color, marker, name = style_of(norm)
        rows = summary.sort_values(x)
        where = rows[x].to_numpy(dtype=float)
        mean, low, high = (factor * rows[c].to_numpy(dtype=float) for c in ("mean", "low", "high"))
        if runs is not None:
            for value, own in runs.sort_values("seed").groupby(x):  # a seed has its place
                spread = 2 ** np.linspace(-SPREAD, SPREAD, len(own))
                self.ax.plot(value * spread, factor * own[metric], ".", color=color, alpha=0.5,
                             markersize=3.5, markeredgewidth=0, zorder=2)  # fmt: skip
        bars = np.vstack([mean - low, high - mean])
        self.ax.errorbar(where, mean, yerr=np.where(np.isfinite(bars), bars, np.nan), color=color,
                         marker=marker, markersize=5, linewidth=1.6, elinewidth=1.0, capsize=2,
                         linestyle=MODES[mode].linestyle, fillstyle=MODES[mode].fill,
                         zorder=3)  # fmt: skip
        self.ticks |= set(where)
        self.ends.append((float(mean[-1]), label or name, color))

    def finish(self, xlabel: str, top: float) -> None:
        """Axes from zero to `top`, and the names at the right ends of the curves, apart."""
        ax = self.ax
        batch_axis(ax, sorted(self.ticks))
        ax.set_xlabel(xlabel, fontsize=TEXT)
        ax.tick_params(labelsize=TEXT - 0.5)
        ax.set_ylim(0, top)
        right = max(self.ticks)
        ax.set_xlim(min(self.ticks) / 2 ** (2 * SPREAD), right * 2 ** (2 * SPREAD))
        names = sorted(self.ends)
        for place, (_, name, color) in zip(
            apart([end for end, _, _ in names], APART * top, top), names, strict=True
        ):
            ax.annotate(name, (right * 2 ** (2 * SPREAD), place), (3, 0), color=color,
                        textcoords="offset points", fontsize=TEXT - 0.5, va="center",
                        annotation_clip=False)  # fmt: skip


def apart(places: list[float], least: float, top: float) -> list[float]:
    """Ascending places moved so that neighbours are `least` apart, between 0 and `top`."""
    found = [min(max(p, 0.0), top) for p in places]
    for _ in range(2):
        for i in range(1, len(found)):
            found[i] = max(found[i], found[i - 1] + least)
        over = max(found[-1] - top, 0.0) if found else 0.0
        if over:
            found[-1] -= over
            for i in range(len(found) - 2, -1, -1):
                found[i] = min(found[i], found[i + 1] - least)
    return found
