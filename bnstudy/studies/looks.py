"""Looks: a table judged after some of its seeds, and after more while nothing is decided.

Each look has a level of its own, smaller than 5 %, so that all together err in 5 % of samples at
most (`stats.looks.levels`). Looks are replayed in their order on what is there: which one ends the
sequence is a function of the records, never of when they were looked at.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from bnstudy.stats import Verdict

Judge = Callable[[pd.DataFrame, float], tuple[Any, bool]]
"""(rows, nominal level) -> (what was found, whether it is decided)"""


@dataclass(frozen=True)
class Look:
    """One look: how many seeds, at which level, and what was found."""

    number: int  # from 1
    of: int  # looks that were declared
    seeds: tuple[int, ...]
    level: float  # nominal, two-sided
    rows: pd.DataFrame  # of these seeds
    found: Any
    decided: bool

    @property
    def last(self) -> bool:
        """Whether the sequence ends here."""
        return self.decided or self.number == self.of

    @property
    def stopped(self) -> str:
        """Why nothing was looked at after it."""
        if self.decided:
            return "it was decided"
        return "it was the last look" if self.last else "the next look lacks runs"


def replay(
    table: pd.DataFrame, cells: int, seeds: Sequence[int], looks: Sequence[int], judge: Judge
) -> list[Look]:
    """The looks that were taken, in their order; empty when the first one lacks runs.

    Args:
        table: one row per run, with `seed`.
        cells: of the grid: a look is complete when it has a run of each cell and seed.
        seeds: of the grid, in the order in which looks take them.
        looks: numbers of seeds.
        judge: finds something in the rows of a look, and says whether it is decided.
    """
    from bnstudy.stats.looks import levels

    taken: list[Look] = []
    for number, (n, level) in enumerate(zip(looks, levels(looks), strict=True), 1):
        rows = table[table["seed"].isin(list(seeds[:n]))]
        if len(rows) < cells * n:
            break
        found, decided = judge(rows, level)
        taken.append(Look(number, len(looks), tuple(seeds[:n]), level, rows, found, decided))
        if decided:
            break
    return taken


def decided(verdicts: Sequence[Verdict]) -> bool:
    """Whether more seeds change nothing: the primary claim has a verdict, or there is none."""
    return all(v.verdict != "inconclusive" for v in verdicts if v.primary)
