"""Panels as data, drawn by one grammar; no statistics, no training."""

from bnstudy.figures.describe import alt, points
from bnstudy.figures.draw import draw
from bnstudy.figures.files import caption, content, save
from bnstudy.figures.grammar import DODGE, batch_axis, canvas, curves, error_axis, legend, series
from bnstudy.figures.headline import Lines, page
from bnstudy.figures.panel import Band, Curve, Panel
from bnstudy.figures.style import (
    LOOKS,
    MODES,
    SERIES,
    STYLES,
    Mode,
    Style,
    hue,
    ramp,
    rc,
    style_of,
)

__all__ = [
    "DODGE",
    "LOOKS",
    "MODES",
    "SERIES",
    "STYLES",
    "Band",
    "Curve",
    "Lines",
    "Mode",
    "Panel",
    "Style",
    "alt",
    "batch_axis",
    "canvas",
    "caption",
    "content",
    "curves",
    "draw",
    "error_axis",
    "hue",
    "legend",
    "page",
    "points",
    "ramp",
    "rc",
    "save",
    "series",
    "style_of",
]
