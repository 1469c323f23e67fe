"""Panels as data, drawn by one grammar; no statistics, no training."""

from bnstudy.figures.describe import alt, points
from bnstudy.figures.draw import draw
from bnstudy.figures.files import caption, content, save
from bnstudy.figures.panel import Band, Curve, Panel
from bnstudy.figures.style import (
    LOOKS,
    MODES,
    STYLES,
    Mode,
    Style,
    hue,
    ramp,
    rc,
    style_of,
)

__all__ = [
    "LOOKS",
    "MODES",
    "STYLES",
    "Band",
    "Curve",
    "Mode",
    "Panel",
    "Style",
    "alt",
    "caption",
    "content",
    "draw",
    "hue",
    "points",
    "ramp",
    "rc",
    "save",
    "style_of",
]
