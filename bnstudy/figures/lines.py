"""Texts in lines that have room."""

import re
from functools import lru_cache

from matplotlib.font_manager import FontProperties
from matplotlib.textpath import TextPath

WORDS = re.compile(r"(?:\[[^\]]*\]\S*|\S+)(?: %\S*)?")  # an interval is one, and so is "95 %"
HEIGHT = 1.2  # of a line of text, in type sizes


@lru_cache(10_000)  # every panel of a figure has the same names
def width(text: str, size: float, bold: bool = False) -> float:
    """Width in points of one line of text of this size."""
    font = FontProperties(weight="bold" if bold else "normal")
    return float(TextPath((0, 0), text, size=size, prop=font).get_extents().width) if text else 0.0


def folded(text: str, points: float, size: float = 0.0, bold: bool = False) -> str:
    """A text in lines of so many points at most; words are kept whole.

    size: of the type, in points; that of the current parameters by default.
    """
    import matplotlib

    size = size or float(matplotlib.rcParams["font.size"])
    lines: list[str] = []
    for paragraph in str(text).splitlines():
        lines.append("")
        for word in WORDS.findall(paragraph):
            longer = f"{lines[-1]} {word}".strip()
            if lines[-1] and width(longer, size, bold) > points:
                lines.append(word)
            else:
                lines[-1] = longer
    return "\n".join(lines)


def number_of(text: str) -> int:
    """Lines of a text; none where it is empty."""
    return text.count("\n") + 1 if text else 0
