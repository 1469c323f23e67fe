"""Images side by side at one scale, each with its name above and a number below."""

from collections.abc import Sequence
from typing import Protocol

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from bnstudy.figures.lines import folded
from bnstudy.figures.style import look_of, rc

ACROSS = 5  # pictures in a row, at most
TITLE, NOTE = 0.34, 0.2  # inches above and below a picture


class Picture(Protocol):
    """An image (H, W) or (H, W, 3) with values in [0, 1], its name, and what stands below it."""

    @property
    def image(self) -> np.ndarray: ...
    @property
    def title(self) -> str: ...
    @property
    def note(self) -> str: ...


def sheet(rows: Sequence[Sequence[Picture]], look: str = "page") -> Figure:
    """A figure of pictures; long rows are folded. Within a row all have one height.

    Raises ValueError without a picture, UserError for another look.
    """
    lines = [own[i : i + ACROSS] for own in rows for i in range(0, len(own), ACROSS)]
    if not lines:
        raise ValueError("a sheet needs a picture, and there is none")
    style = look_of(look)
    across = max(map(len, lines))
    width = style.width * min(across / ACROSS, 1) ** 0.6
    cell = width / across
    heights = [
        cell * max(p.image.shape[0] / p.image.shape[1] for p in line)
        + style.scale * (TITLE + NOTE * any(p.note for p in line))
        for line in lines
    ]
    with matplotlib.rc_context(rc(look)):
        figure = Figure((width, sum(heights)), layout="constrained")
        grid = figure.add_gridspec(len(lines), across, height_ratios=heights)
        for i, line in enumerate(lines):
            for j, own in enumerate(line):
                ax = figure.add_subplot(grid[i, j])
                ax.imshow(own.image, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
                ax.set_xticks([])
                ax.set_yticks([])
                ax.set_title(folded(own.title, 68 * cell, style.type - 0.5))
                ax.set_xlabel(own.note)
    return figure
