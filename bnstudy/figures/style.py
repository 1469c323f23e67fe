"""Styles: a color and a marker for each normalization, a line style for each evaluation mode.

They are the same in every figure. Fonts and sizes come from `rc`, in a context and never globally:
`with matplotlib.rc_context(rc()):`.
"""

import hashlib
from typing import Any, NamedTuple

COLUMN_WIDTH = 3.4  # inches: one panel is about one column of a two-column paper
PANEL_HEIGHT = 2.6


class Style(NamedTuple):
    """The color, marker and label of one normalization, in every figure."""

    color: str
    marker: Any
    label: str


# The eight colors of Okabe & Ito (2008) stay distinct under the three common kinds of color
# blindness; the rest are from Tol's muted scheme. No two normalizations share a marker, so grey
# print works too; all markers can be filled, because a hollow one says that runs diverged.
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


def rc() -> dict[Any, Any]:
    """Matplotlib parameters of all figures, for `matplotlib.rc_context`; nothing global is set."""
    return {
        "font.family": "sans-serif",
        "font.sans-serif": ["DejaVu Sans"],  # shipped with matplotlib: same metrics everywhere
        "mathtext.fontset": "stix",
        "font.size": 8.0,
        "axes.titlesize": 8.5,
        "axes.labelsize": 8.0,
        "xtick.labelsize": 7.5,
        "ytick.labelsize": 7.5,
        "legend.fontsize": 7.5,
        "legend.frameon": False,
        "legend.handlelength": 2.6,
        "axes.linewidth": 0.7,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "axes.axisbelow": True,
        "grid.color": "#e4e4e4",
        "grid.linewidth": 0.6,
        "lines.linewidth": 1.3,
        "lines.markersize": 4.5,
        "xtick.major.width": 0.7,
        "ytick.major.width": 0.7,
        "figure.dpi": 100,
        "savefig.dpi": 200,
        "savefig.bbox": None,
        "text.usetex": False,
        "svg.fonttype": "path",
        "svg.hashsalt": "bnstudy",
        "pdf.fonttype": 42,
    }


# Okabe & Ito (2008) again, for curves that are not normalizations; each with a marker of its own
SERIES = (("#D55E00", "o"), ("#0072B2", "s"), ("#009E73", "^"), ("#CC79A7", "D"), ("#E69F00", "p"),
          ("#56B4E9", "v"), ("#000000", "X"))  # fmt: skip
