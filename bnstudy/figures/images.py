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
    if len({image.pixels.shape[:2] for image in images}) != 1:
        raise ValueError(f"images in a row are of one size, at least one; given {len(images)}")
    style = look_of(look)
    height, width = images[0].pixels.shape[:2]
    text = style.type / 72  # inches of a line
    each = style.width / len(images)
    tall = each * height / width + 4 * text + (2.5 * text if note else 0)
    with matplotlib.rc_context(rc(look)):
        figure = Figure(figsize=(style.width, tall), layout="constrained")
        axes: Any = figure.subplots(1, len(images), squeeze=False)[0]
        for ax, image in zip(axes, images, strict=True):
            ax.imshow(np.clip(image.pixels, 0, 1), cmap="gray", vmin=0, vmax=1,
                      interpolation="nearest")  # fmt: skip
            ax.set(title=image.title, xlabel=image.caption, xticks=[], yticks=[])
            ax.grid(visible=False)
            for spine in ax.spines.values():
                spine.set_visible(False)
        if note:
            figure.supxlabel(note, fontsize=style.type - 1)
    return figure
