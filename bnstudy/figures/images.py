"""Images side by side at one scale: what a network makes of a photograph."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from bnstudy.figures.style import look_of, rc


@dataclass(frozen=True, eq=False)
class Shown:
    """An image with what stands above and below it.

    pixels: (H, W) grey levels or (H, W, 3) colors in [0, 1]; what lies outside is clipped.
    """

    pixels: np.ndarray
    title: str
    caption: str = ""


def row(images: Sequence[Shown], look: str = "page", note: str = "") -> Figure:
    """Images in a row, a pixel of each equally large, all with grey levels from 0 to 1.

    note: below all of them, such as the rule by which they were chosen.
    Raises ValueError for no image, and for images of several sizes.
    """
    return sheet([images], look, note)


def sheet(rows: Sequence[Sequence[Shown]], look: str = "page", note: str = "") -> Figure:
    """Rows of images; within a row as `row`, all images of the figure equally wide.

    Raises ValueError for no row, and as `row`.
    """
    for images in rows or [[]]:
        if len({image.pixels.shape[:2] for image in images}) != 1:
            raise ValueError(f"images in a row are of one size, at least one; given {len(images)}")
    style = look_of(look)
    text = style.type / 72  # inches of a line
    across = max(map(len, rows))
    each = style.width / across
    heights = []
    for images in rows:
        height, width = images[0].pixels.shape[:2]
        heights.append(each * height / width + (2.5 + 1.5 * any(i.caption for i in images)) * text)
    lines = note.count("\n") + 1.5 if note else 0
    with matplotlib.rc_context(rc(look)):
        size = style.width, sum(heights) + lines * text
        figure = Figure(figsize=size, layout="constrained")
        grid = figure.add_gridspec(len(rows), across, height_ratios=heights)
        for i, images in enumerate(rows):
            for j, image in enumerate(images):
                _show(figure.add_subplot(grid[i, j]), image)
        if note:
            figure.supxlabel(note, fontsize=style.type - 1)
    return figure


def _show(ax: Any, image: Shown) -> None:
    """An image on axes of its own."""
    ax.imshow(np.clip(image.pixels, 0, 1), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    ax.set(title=image.title, xlabel=image.caption, xticks=[], yticks=[])
    ax.grid(visible=False)
    for spine in ax.spines.values():
        spine.set_visible(False)
