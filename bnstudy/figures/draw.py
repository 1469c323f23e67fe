"""Panels to a figure: the one grammar of all studies.

No statistics here: means and intervals arrive computed. A figure needs no pyplot and no display.
"""

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator

from bnstudy.figures.axes import onto
from bnstudy.figures.labels import Labels
from bnstudy.figures.lines import HEIGHT, folded, number_of
from bnstudy.figures.lines import width as widest
from bnstudy.figures.panel import Panel
from bnstudy.figures.style import Look, look_of, rc

CURVES = 2.3  # inches of a row of panels with curves, at 9 pt, without its titles
ROW, ROWLESS = 0.42, 0.6  # inches of a dot's row, and of what is around the rows
GAP = 0.5  # type sizes between axes and what stands above them
DESCENT = 0.25  # type sizes that letters of a title reach below its line
MARGIN = 6.0  # points to the right of a title


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
    rows = [panels[i : i + across] for i in range(0, len(panels), across)]
    with matplotlib.rc_context(rc(look)):
        # few panels: not as wide as a page, or they would be flat
        width = style.width * (across / style.columns) ** 0.6
        bodies = [_body(row, style) for row in rows]
        figure = Figure((width, sum(bodies)), layout="constrained")
        grid = figure.add_gridspec(len(rows), across)
        every, names = [], []
        for i, row in enumerate(rows):
            every.append([figure.add_subplot(grid[i, j]) for j in range(len(row))])
            pairs = zip(every[-1], row, strict=True)
            names.append([Labels(ax, onto(ax, panel), style.type - 0.5) for ax, panel in pairs])
            _share(every[-1], row)
        _lay_out(figure)  # now it is known how much room the titles have
        above = [
            _titles(axes, row, verdicts or {}, style) for axes, row in zip(every, rows, strict=True)
        ]
        heights = [body + extra for body, extra in zip(bodies, above, strict=True)]
        top = _heading(figure, heading, style)

        def resize() -> None:
            grid.set_height_ratios(heights)
            figure.set_size_inches(width, sum(heights) + top)
            _lay_out(figure)

        resize()
        crowded = [[own for own in row if not own.settle()] for row in names]
        if any(crowded):
            _lay_out(figure)  # without the names that are no longer there
            below = [max([own.legend() for own in row], default=0.0) for row in crowded]
            heights = [height + extra for height, extra in zip(heights, below, strict=True)]
            resize()
        for own, panel in zip((own for row in names for own in row), panels, strict=True):
            _clear(own.ax, own.size, words=panel.x == "names")
    return figure


def _lay_out(figure: Figure) -> None:
    """Give axes their places, as drawing does, without drawing."""
    engine = figure.get_layout_engine()
    assert engine is not None
    engine.execute(figure)


def _body(row: Sequence[Panel], style: Look) -> float:
    """Inches of a row of panels without its titles."""
    dots = [
        ROWLESS + ROW * (len(panel.curves) + 0.5 * any(band.label for band in panel.bands))
        for panel in row
        if panel.kind == "dots"
    ]
    curves = [CURVES] * (len(dots) < len(row))
    return style.scale * max(dots + curves)


def _share(axes: Sequence[Axes], row: Sequence[Panel]) -> None:
    """One label of y for neighbours that have the same."""
    for ax, (before, panel) in zip(axes[1:], pairwise(row), strict=True):
        if before.kind == panel.kind == "curves" and before.ylabel == panel.ylabel:
            ax.set_ylabel("")


def _heading(figure: Figure, heading: str, style: Look) -> float:
    """Write the line over all panels; its height in inches."""
    size = 1.1 * style.type
    text = folded(heading, 71 * figure.get_size_inches()[0], size, bold=True)
    if not text:
        return 0.0
    figure.suptitle(text, x=0.01, ha="left", fontsize=size, fontweight="bold")
    return (0.5 + HEIGHT * number_of(text)) * size / 72


def _titles(
    axes: Sequence[Axes], row: Sequence[Panel], verdicts: Mapping[str, str], style: Look
) -> float:
    """Write the titles of a row, and the verdicts below them, at one height; inches they take.

    They may be as long as there is room up to the next panel. Their widths do not narrow the axes.
    """
    size = style.type
    texts = []
    for panel, points in zip(row, _rooms(axes), strict=True):
        verdict = verdicts.get(panel.claim, "")
        texts.append((folded(panel.title, points, size, bold=True), folded(verdict, points, size)))
    below = max(number_of(verdict) for _, verdict in texts)
    for ax, (title, verdict) in zip(axes, texts, strict=True):
        ax.set_title(title, loc="left", fontweight="bold", linespacing=HEIGHT - 0.1,
                     pad=(GAP + below * HEIGHT + bool(below) * DESCENT) * size)  # fmt: skip
        if verdict:
            up = (GAP + DESCENT + (below - number_of(verdict)) * HEIGHT) * size
            text = ax.annotate(verdict, (0, 1), (0, up), xycoords="axes fraction", va="baseline",
                               textcoords="offset points", linespacing=HEIGHT - 0.1)  # fmt: skip
            text.set_in_layout(False)
    lines = below + max(number_of(title) for title, _ in texts)
    return (GAP + bool(below) * DESCENT + HEIGHT * lines) * size / 72


def _rooms(axes: Sequence[Axes]) -> list[float]:
    """Points from the left of each of these axes to the next one's labels, or the right margin."""
    figure = axes[0].get_figure(root=True)
    assert figure is not None
    lefts = [ax.get_window_extent().x0 for ax in axes]
    ends = [ax.get_tightbbox().x0 for ax in axes[1:]]  # type: ignore[union-attr]
    pairs = zip(lefts, [*ends, figure.bbox.x1], strict=True)
    return [72 * (end - left) / figure.dpi - MARGIN for left, end in pairs]


def _clear(ax: Axes, size: float, words: bool) -> None:
    """Leave out ticks of x that would run into the one before; words go a line below it."""
    locator, text = ax.xaxis.get_major_locator(), ax.xaxis.get_major_formatter()
    figure = ax.get_figure(root=True)
    if not isinstance(locator, FixedLocator) or figure is None:
        return
    kept: list[float] = []
    free = [-math.inf] * (2 if words else 1)  # where the label before ends in each line, in points
    lines: dict[float, int] = {}
    for tick in map(float, locator.tick_values(0, 1)):
        spot = 72 * float(ax.transData.transform((tick, ax.get_ylim()[1]))[0]) / figure.dpi
        half = 0.5 * widest(text(tick), size)
        line = next((i for i, end in enumerate(free) if spot - half > end), None)
        if line is not None:
            kept.append(tick)
            lines[tick] = line
            free[line] = spot + half + 0.4 * size
    ax.xaxis.set_major_locator(FixedLocator(kept))
    if any(lines.values()):
        ax.xaxis.set_major_formatter(lambda tick, _: "\n" * lines.get(tick, 0) + text(tick))
