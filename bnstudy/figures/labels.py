"""Names beside their curves, kept apart; a legend where they do not fit."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.transforms import Bbox, offset_copy

from bnstudy.figures.axes import Name, ink
from bnstudy.figures.lines import HEIGHT as LINE
from bnstudy.figures.lines import folded, number_of

WIDE = 7.0  # type sizes of a line of a name, at most
NARROW = 8.0  # type sizes: axes narrower than this have no room for names beside them
CORNERS = ("upper right", "upper left", "lower right", "lower left", "center right", "center left",
           "upper center", "lower center", "center")  # fmt: skip


class Labels:
    """The names of one panel: first beside their curves, as wide as they will be; then in place."""

    def __init__(self, ax: Axes, names: Sequence[Name], size: float) -> None:
        self.ax, self.size = ax, size
        self.names = sorted((name for name in names if name.text), key=lambda name: name.y)
        self.texts = [folded(name.text, WIDE * size, size) for name in self.names]
        self.artists: list[Any] = []
        self._write([0.5] * len(self.names))

    def settle(self) -> bool:
        """Move the names to the ends of their curves; False where a legend takes their place.

        Needs a figure that is laid out.
        """
        box = self.ax.get_window_extent()
        height, width = 72 * box.height / self._dpi, 72 * box.width / self._dpi
        heights = [LINE * self.size * number_of(t) / height for t in self.texts]
        ends = [self._place(name.y) for name in self.names]
        for artist in self.artists:
            artist.remove()
        if sum(heights) > 1 or width < NARROW * self.size:
            self.artists = []
            return False
        self._write(apart(ends, heights))
        return True

    def _place(self, y: float) -> float:
        """A value as a part of the height of the axes."""
        display = self.ax.transData.transform((self.ax.get_xlim()[0], y))
        return float(self.ax.transAxes.inverted().transform(display)[1])

    def _write(self, places: Sequence[float]) -> None:
        ax, figure = self.ax, self.ax.figure
        self.artists = []

        def beside(points: float) -> Any:
            return offset_copy(ax.transAxes, figure, points, 0, units="points")  # type: ignore[arg-type]

        for name, text, place in zip(self.names, self.texts, places, strict=True):
            start = 0.35 * self.size
            if name.marker:
                self._lead(name, place)
                self.artists += ax.plot([1], [place], transform=beside(0.9 * self.size),
                                        clip_on=False, color=name.color, **name.marker)  # fmt: skip
                start = 1.6 * self.size
            self.artists.append(ax.text(1, place, text, transform=beside(start), va="center",
                                        linespacing=LINE - 0.1, color=ink(name.color)))  # fmt: skip

    def _lead(self, name: Name, place: float) -> None:
        """A thin line from the end of a curve to its name, where that is not beside it."""
        line = self.ax.annotate(
            "", (name.x, name.y), (1, place), xycoords="data", textcoords="axes fraction",
            arrowprops={"arrowstyle": "-", "color": name.color, "linewidth": 0.06 * self.size,
                        "alpha": 0.6, "shrinkA": 0, "shrinkB": 0},
            annotation_clip=False, zorder=1.4,
        )  # fmt: skip
        line.set_in_layout(False)
        self.artists.append(line)

    def legend(self) -> float:
        """A legend where it hides nothing, else below the axes; inches that it takes there."""
        axes, dpi = self.ax.get_window_extent(), self._dpi
        room = 72 * axes.width / dpi - 4 * self.size  # for names, beside their lines
        handles = [
            Line2D([], [], color=name.color, label=folded(name.text, room, self.size),
                   linestyle=name.line, **name.marker)
            for name in reversed(self.names)
        ]  # fmt: skip
        taken = _occupied(self.ax)
        for corner in CORNERS:
            box = self.ax.legend(handles=handles, loc=corner).get_window_extent()  # type: ignore[call-overload]
            if not _hides(box, taken) and _within(box, axes):
                return 0.0
        labels = self.ax.xaxis.get_tightbbox()  # of the ticks and of the axis
        down = (axes.y0 - labels.y0) / axes.height if labels else 0.0
        for columns in (2, 1):
            box = self.ax.legend(
                handles=handles, loc="upper left", bbox_to_anchor=(-0.02, -down), ncols=columns,
                columnspacing=1.0,
            ).get_window_extent()  # fmt: skip
            if box.width <= axes.width:
                break
        return float(box.height / dpi)

    @property
    def _dpi(self) -> float:
        figure = self.ax.get_figure(root=True)
        assert figure is not None
        return float(figure.dpi)


def apart(places: Sequence[float], heights: Sequence[float]) -> list[float]:
    """Ascending places, moved as little as keeps texts of these heights apart, between 0 and 1.

    Least squares: isotonic regression of the places less what stands below them (pool adjacent
    violators, Ayer et al. 1955).
    """
    if not places:
        return []
    own = np.asarray(heights, dtype=float)
    stacked = np.concatenate([[0.0], np.cumsum((own[1:] + own[:-1]) / 2)])
    blocks: list[list[float]] = []  # sum and number
    for place in np.asarray(places, dtype=float) - stacked:
        blocks.append([float(place), 1.0])
        while len(blocks) > 1 and blocks[-2][0] / blocks[-2][1] > blocks[-1][0] / blocks[-1][1]:
            total, number = blocks.pop()
            blocks[-1][0] += total
            blocks[-1][1] += number
    level = np.concatenate([np.full(int(number), total / number) for total, number in blocks])
    level = np.clip(level, own[0] / 2, 1 - own[-1] / 2 - stacked[-1])
    return [float(place) for place in level + stacked]


def _occupied(ax: Axes) -> np.ndarray:
    """Points of the display where something is drawn."""
    found = []
    for line in ax.get_lines():
        if line.get_transform().contains_branch(ax.transData):
            points = line.get_transform().transform(np.column_stack(line.get_data()).astype(float))
            points = points[np.isfinite(points).all(axis=1)]
            if len(points) > 1 and line.get_linestyle() != "None":
                place = np.arange(0, len(points) - 1, 0.05)
                points = np.column_stack([
                    np.interp(place, np.arange(len(points)), axis) for axis in points.T
                ])  # fmt: skip
            found.append(points)
    for bars in ax.collections:
        for path in bars.get_paths():
            found.append(ax.transData.transform(path.interpolated(20).vertices))
    return np.concatenate(found) if found else np.empty((0, 2))


def _hides(box: Bbox, points: np.ndarray) -> bool:
    x, y = points.T
    inside = (box.x0 - 3 < x) & (x < box.x1 + 3) & (box.y0 - 3 < y) & (y < box.y1 + 3)
    return bool(inside.any())


def _within(box: Bbox, outer: Bbox) -> bool:
    wide = box.x0 >= outer.x0 - 1 and box.x1 <= outer.x1 + 1
    return bool(wide and box.y0 >= outer.y0 - 1 and box.y1 <= outer.y1 + 1)
