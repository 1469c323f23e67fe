"""Panels to a figure: the one grammar of all studies.

No statistics here: means and intervals arrive computed. A figure needs no pyplot and no display.
"""

from collections.abc import Mapping, Sequence

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator

from bnstudy.figures.axes import folded, onto
from bnstudy.figures.labels import LINE, Labels
from bnstudy.figures.panel import Panel
from bnstudy.figures.style import Look, look_of, rc

CURVES = 2.3  # inches of a row of panels with curves, at 9 pt, without its titles
ROW, ROWLESS = 0.42, 0.6  # inches of a dot's row, and of what is around the rows
CHARACTER = 0.56  # of the type size: mean width of a character


def draw(
    panels: Sequence[Panel],
    look: str = "page",
    heading: str = "",
    verdicts: Mapping[str, str] | None = None,
    columns: int = 3,
) -> Figure:
    """A figure of panels in rows of `columns` at most, with their names beside the curves.

    look:     "page" (8.5 in wide, 9 pt), "column" (3.25 in, 8 pt, one panel below the other) or
              "slide" (12.5 in, 14 pt).
    heading:  a line over all panels.
    verdicts: name of a claim -> what is written below the titles of its panels.
    Raises UserError for another look, ValueError for no panel and for one that cannot be drawn: see
    `Panel`.
    """
    style = look_of(look)
    if not panels:
        raise ValueError("a figure needs a panel, and there is none")
    across = min(columns, style.columns, len(panels))
    with matplotlib.rc_context(rc(look)):
        # few panels: not as wide as a page, or they would be flat
        width = style.width * (across / style.columns) ** 0.6
        figure = Figure(layout="constrained")
        rows = [panels[i : i + across] for i in range(0, len(panels), across)]
        titles = [_titles(row, verdicts or {}, style, width / across) for row in rows]
        heights = [_height(row, own, style) for row, own in zip(rows, titles, strict=True)]
        top = folded(heading, int(72 * width / (1.15 * CHARACTER * style.type))) if heading else ""
        above = 1.6 * style.type / 72 * (1 + top.count("\n")) if top else 0.0
        figure.set_size_inches(width, sum(heights) + above)
        if top:
            figure.suptitle(top, x=0.01, ha="left", fontsize=1.1 * style.type, fontweight="bold")
        grid = figure.add_gridspec(len(rows), across, height_ratios=heights)
        labels = []
        for i, row in enumerate(rows):
            for j, panel in enumerate(row):
                ax = figure.add_subplot(grid[i, j])
                names = onto(ax, panel)
                _write(ax, *titles[i][j], titles[i], style)
                labels.append(Labels(ax, names, style.type - 0.5))
        _settle(figure, labels)
    return figure


def _settle(figure: Figure, labels: Sequence[Labels]) -> None:
    """What depends on where the axes come to lie: names, legends, ticks that have room."""
    figure.draw_without_rendering()
    crowded = [own for own in labels if not own.settle()]
    if crowded:
        figure.draw_without_rendering()
        for own in crowded:
            own.legend()
        figure.draw_without_rendering()
    for own in labels:
        _thin(own.ax, own.size)


def _thin(ax: Axes, size: float) -> None:
    """Leave out ticks of x that would run into the one before."""
    locator = ax.xaxis.get_major_locator()
    if not isinstance(locator, FixedLocator):
        return
    width = 72 * ax.get_window_extent().width / ax.get_figure(root=True).dpi  # type: ignore[union-attr]
    ticks = [float(t) for t in locator.locs]
    spots = ax.transAxes.inverted().transform(
        ax.transData.transform([(t, ax.get_ylim()[0]) for t in ticks])
    )[:, 0]
    text = ax.xaxis.get_major_formatter()
    kept: list[float] = []
    free = -np.inf  # where the label before ends
    for tick, spot in zip(ticks, spots, strict=True):
        half = 0.5 * CHARACTER * 1.15 * size * len(text(tick)) / width
        if spot - half > free:
            kept.append(tick)
            free = spot + half + 0.4 * size / width
    ax.xaxis.set_major_locator(FixedLocator(kept))


def _titles(
    row: Sequence[Panel], verdicts: Mapping[str, str], style: Look, width: float
) -> list[tuple[str, str]]:
    """Title and verdict of each panel of a row, in lines as long as a panel is wide."""
    characters = int(72 * (width - 0.35 * style.scale) / (CHARACTER * style.type))
    return [
        (folded(panel.title, characters), folded(verdicts.get(panel.claim, ""), characters))
        for panel in row
    ]


def _lines(text: str) -> int:
    return text.count("\n") + 1 if text else 0


def _height(row: Sequence[Panel], titles: Sequence[tuple[str, str]], style: Look) -> float:
    """Inches of a row of panels."""
    body = max(
        ROWLESS + ROW * (len(panel.curves) + any(band.label for band in panel.bands))
        if panel.kind == "dots"
        else CURVES
        for panel in row
    )
    lines = max(_lines(title) for title, _ in titles) + max(_lines(v) for _, v in titles)
    return body * style.scale + LINE * style.type * lines / 72


def _write(ax: Axes, title: str, verdict: str, row: Sequence[tuple[str, str]], style: Look) -> None:
    """Title and verdict of a panel: at the same height in the whole row."""
    below = max(_lines(verdict) for _, verdict in row)
    room = 0.5 * style.type
    ax.set_title(title, loc="left", fontweight="bold", linespacing=LINE - 0.05,
                 pad=room + below * LINE * style.type)  # fmt: skip
    if verdict:
        ax.annotate(verdict, (0, 1), (0, room + (below - _lines(verdict)) * LINE * style.type),
                    xycoords="axes fraction", textcoords="offset points", va="bottom",
                    linespacing=LINE - 0.1)  # fmt: skip
