"""Styles: a color and a marker for each normalization, a line style for each evaluation mode.

They are the same in every figure; what is no normalization has styles of its own (`hue`, `ramp`).
Fonts and sizes come from `rc`, in a context and never globally: `with
matplotlib.rc_context(rc()):`.
"""

import hashlib
from dataclasses import dataclass
from typing import Any, NamedTuple

from bnstudy.errors import unknown


class Style(NamedTuple):
    """The color, marker and label of one normalization, in every figure."""

    color: str
    marker: Any
    label: str


# The eight colors of Okabe & Ito (2008) stay distinct under the three common kinds of color
# blindness; the rest are from Tol's muted scheme. No two normalizations share a marker, so grey
# print works too; all can be hollow or half filled, which says where statistics come from.
STYLES: dict[str, Style] = {
    "none": Style("#000000", "X", "no norm"),
    "batch": Style("#D55E00", "o", "batch"),
    "group": Style("#0072B2", "s", "group"),
    "layer": Style("#009E73", "^", "layer"),
    "instance": Style("#CC79A7", "D", "instance"),
    "ghost": Style("#E69F00", "p", "ghost batch"),
    "renorm": Style("#56B4E9", "v", "batch renorm"),
    "frn": Style("#882255", "P", "filter response"),
    "online": Style("#332288", "h", "online"),
    "ws_group": Style("#117733", "<", "group + weight std."),
    "rms": Style("#999933", ">", "root mean square"),
    "noisy": Style("#AA4499", "*", "noisy batch"),
    "continual": Style("#44AA99", "d", "continual"),
    "dyt": Style("#661500", (5, 1, 0), "dynamic tanh"),
    "power": Style("#EECC66", (6, 0, 0), "power"),
    "torch_batch": Style("#555555", (4, 1, 45), "batch (torch.nn)"),
}
# For normalizations that users bring: markers that no known name has, chosen by the name's hash.
_SPARE_COLORS = ("#88CCEE", "#CC6677", "#DDCC77", "#661100", "#6699CC", "#888888")
_SPARE_MARKERS = ("8", "H", (4, 1, 0), (6, 1, 0), (8, 1, 0), (7, 0, 0), (3, 0, 30))


class Mode(NamedTuple):
    """The line style of one evaluation mode, and the suffix of its metrics' names."""

    linestyle: Any
    label: str
    suffix: str
    fill: str = "full"  # which part of the marker is filled


MODES: dict[str, Mode] = {
    "population": Mode("-", "exponential average", ""),
    "precise": Mode((0, (5, 1.5)), "PreciseBN", "_precise", "none"),
    "batch": Mode((0, (1, 1.2)), "training-batch statistics", "_batch", "bottom"),
    "large_batch": Mode((0, (5, 1.2, 1, 1.2)), "large-batch statistics", "_large_batch", "left"),
    "frozen": Mode((0, (9, 2, 1, 2, 1, 2)), "frozen statistics", "_frozen", "right"),
}


def style_of(norm: str) -> Style:
    """The style of a normalization; an unknown name always gets the same ones."""
    if norm in STYLES:
        return STYLES[norm]
    digest = int(hashlib.sha256(str(norm).encode()).hexdigest(), 16)
    color = _SPARE_COLORS[digest % len(_SPARE_COLORS)]
    marker = _SPARE_MARKERS[digest // len(_SPARE_COLORS) % len(_SPARE_MARKERS)]
    return Style(color, marker, str(norm))


# What is no normalization: IBM's and Petroff's (2021, arXiv:2107.02270) colors and Tol's dark ones
# that stay apart from each other, also to the color-blind, and from the norms' (CIELAB distance 24
# and more; a test computes it). The markers are shapes that no norm has, and all can be filled.
_HUES = ("#7a21dd", "#a96b59", "#648fff", "#222255", "#94a4a2", "#663333")
_SHAPES: tuple[Any, ...] = (
    ((-1, -0.55), (1, -0.55), (1, 0.55), (-1, 0.55), (-1, -0.55)),  # wide
    ((-0.55, -1), (0.55, -1), (0.55, 1), (-0.55, 1), (-0.55, -1)),  # tall
    ((-0.9, -1), (0.9, -1), (-0.9, 1), (0.9, 1), (-0.9, -1)),  # hourglass
    (3, 1, 0),  # a star of three
    ((-1, -0.9), (-1, 0.9), (1, -0.9), (1, 0.9), (-1, -0.9)),  # bow tie
    ((-1, -0.8), (0.4, -0.8), (1, 0.8), (-0.4, 0.8), (-1, -0.8)),  # leaning
    (3, 1, 180),
)
# ColorBrewer's BuPu (colorbrewer2.org, safe for the color-blind), from its fifth step: the lighter
# ones vanish on white. Lightness falls steadily, so that order is seen in grey as well.
_RAMP = ("#8c96c6", "#8c6bb1", "#88419d", "#810f7c", "#4d004b")


def hue(i: int) -> Style:
    """The i-th style (from 0) of curves that are not normalizations.

    Six colors and seven markers: 42 styles before one is used again. The label is for the curve to
    give.
    """
    return Style(_HUES[i % len(_HUES)], _SHAPES[i % len(_SHAPES)], "")


def ramp(n: int) -> list[Style]:
    """n styles for ordered values, such as lengths or group sizes, from light to dark."""
    stops = [[int(color[k : k + 2], 16) for k in (1, 3, 5)] for color in _RAMP]
    found = []
    for i in range(n):
        place = (len(stops) - 1) * (i / (n - 1) if n > 1 else 1.0)
        low = min(int(place), len(stops) - 2)
        pairs = zip(stops[low], stops[low + 1], strict=True)
        mixed = (round(a + (place - low) * (b - a)) for a, b in pairs)
        color = "#" + "".join(f"{part:02x}" for part in mixed)
        found.append(Style(color, _SHAPES[i % len(_SHAPES)], ""))
    return found


@dataclass(frozen=True)
class Look:
    """Where a figure goes: width and type size, and how many panels stand side by side."""

    width: float  # inches, of as many panels as fit
    type: float  # points
    columns: int  # panels side by side, at most

    @property
    def scale(self) -> float:
        """Of lines, markers and heights, against those of a page."""
        return self.type / 9.0


# column: of a two-column paper, 3.25 in in the instructions of ICML and CVPR, 8 pt at least there.
# page: US letter's width; at 850 px its 9 pt are 12.5 px. slide: PowerPoint's 13.33 x 7.5 in less a
# margin.
LOOKS = {"column": Look(3.25, 8, 1), "page": Look(8.5, 9, 3), "slide": Look(12.5, 14, 3)}


def look_of(name: str) -> Look:
    """A look by its name. Raises UserError for another name, with the nearest one."""
    if name not in LOOKS:
        raise unknown("look", name, LOOKS)
    return LOOKS[name]


def rc(look: str = "page") -> dict[Any, Any]:
    """Matplotlib parameters of all figures, for `matplotlib.rc_context`; nothing global is set."""
    size, scale = look_of(look).type, look_of(look).scale
    return {
        "font.family": "sans-serif",
        "font.sans-serif": ["DejaVu Sans"],  # shipped with matplotlib: same metrics everywhere
        "text.parse_math": False,  # a `$` in a name is a dollar
        "font.size": size,
        "axes.titlesize": size,
        "axes.labelsize": size,
        "xtick.labelsize": size - 0.5,
        "ytick.labelsize": size - 0.5,
        "legend.fontsize": size - 0.5,
        "legend.frameon": False,
        "legend.handlelength": 2.0,
        "axes.linewidth": 0.7 * scale,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "axes.axisbelow": True,
        "grid.color": "#e4e4e4",
        "grid.linewidth": 0.6 * scale,
        "lines.linewidth": 1.5 * scale,
        "lines.markersize": 5.0 * scale,
        "xtick.major.width": 0.7 * scale,
        "ytick.major.width": 0.7 * scale,
        "figure.dpi": 100,
        "savefig.dpi": 200,
        "savefig.bbox": None,
        "text.usetex": False,
        "svg.fonttype": "path",
        "svg.hashsalt": "bnstudy",
        "pdf.fonttype": 42,  # TrueType, embedded: some journals refuse type 3
    }
