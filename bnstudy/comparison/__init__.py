"""The table a paper would show: arms with intervals and the paired difference to the first arm.

`compare` gives tidy numbers, one row per arm and place; `to_csv` writes them as they are;
`to_text`, `to_markdown` and `to_latex` lay them out. What a figure of them shows is in
`comparison.panels`, which loads matplotlib.
"""

from bnstudy.comparison.cells import compare, undecided
from bnstudy.comparison.sheet import to_csv, to_latex, to_markdown, to_rich, to_text

__all__ = [
    "compare",
    "to_csv",
    "to_latex",
    "to_markdown",
    "to_rich",
    "to_text",
    "undecided",
]
