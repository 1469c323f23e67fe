"""Styles and drawing: tables in, axes out; no statistics, no training."""

from bnstudy.figures.grammar import (
    DODGE,
    batch_axis,
    canvas,
    caption,
    curves,
    error_axis,
    legend,
    save,
    series,
)
from bnstudy.figures.headline import Lines, page
from bnstudy.figures.style import (
    COLUMN_WIDTH,
    MODES,
    PANEL_HEIGHT,
    SERIES,
    STYLES,
    Mode,
    Style,
    rc,
    style_of,
)

__all__ = [
    "COLUMN_WIDTH",
    "DODGE",
    "MODES",
    "PANEL_HEIGHT",
    "SERIES",
    "STYLES",
    "Lines",
    "Mode",
    "Style",
    "batch_axis",
    "canvas",
    "caption",
    "curves",
    "error_axis",
    "legend",
    "page",
    "rc",
    "save",
    "series",
    "style_of",
]
