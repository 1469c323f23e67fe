"""Looking at the seeds several times, and what level each look may spend.

Testing at 5 % after 12, 24 and 48 seeds, and stopping at the first finding, errs in more than 5 %
of null studies. Alpha spending divides the 5 % among the looks.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from bnstudy.errors import UserError
from bnstudy.stats.tests import fewest

NODES = 200  # Gauss-Legendre points: the total then equals alpha to 1e-10 for up to ten looks


def levels(looks: Sequence[int], alpha: float = 0.05) -> tuple[float, ...]:
    """The nominal two-sided level at each look, so that all looks together err in alpha.

    looks: seeds at each look, growing; the last is the largest n. alpha: total level, two-sided.
    After a part t of all seeds, alpha * ln(1 + (e - 1) t) is spent: about the same nominal level at
    every look, as in Pocock 1977. One look spends all. A one-sided test at the same nominal levels
    errs in less than alpha.
    Raises UserError for looks that do not grow and for a first look at which no result could reach
    its level.
    Source: Lan & DeMets 1983, Biometrika 70, 659-663; the recursion over looks is Armitage,
    McPherson & Rowe 1969, J. R. Statist. Soc. A 132, 235-244. It takes means of n seeds as normal.
    """
    from scipy.optimize import brentq
    from scipy.stats import norm

    looks = _checked(looks, alpha)
    times = [look / looks[-1] for look in looks]
    spent = [alpha * math.log(1 + (math.e - 1) * t) for t in times]
    found: list[float] = []
    paths = _Paths()

    def excess(z: float, paths: _Paths, time: float, budget: float) -> float:
        return paths.crossing(time, z) - budget

    for time, budget in zip(times, np.diff([0.0, *spent]), strict=True):
        bound = brentq(excess, 0.0, 40.0, args=(paths, time, budget), xtol=1e-13, rtol=1e-14)
        found.append(2 * float(norm.sf(bound)))
        paths = paths.surviving(time, bound)
    if looks[0] < fewest(found[0]):
        raise UserError(
            f"a look at {looks[0]} seeds is too early: {fewest(found[0])} at least can reach its "
            f"level of {found[0]:.2g}."
        )
    return tuple(found)


def _checked(looks: Sequence[int], alpha: float) -> list[int]:
    if not 0 < alpha < 1:
        raise UserError(f"alpha must lie between 0 and 1, got {alpha}.")
    looks = list(looks)
    grows = all(a < b for a, b in pairwise(looks))
    if not looks or looks[0] < 1 or not grows:
        raise UserError(f"looks are numbers of seeds that grow, such as [12, 24, 48]; got {looks}.")
    return looks


class _Paths:
    """The part of a Brownian path's distribution that has crossed no bound so far.

    points, mass: a quadrature of the density of the path at `time`, over where it may be.
    """

    def __init__(self) -> None:
        self.time = 0.0
        self.points = np.zeros(1)
        self.mass = np.ones(1)

    def crossing(self, time: float, z: float) -> float:
        """The probability that |path| / sqrt(time) exceeds z at `time`, and no bound before."""
        from scipy.stats import norm

        reach, step = z * math.sqrt(time), math.sqrt(time - self.time)
        outside = norm.sf((reach - self.points) / step) + norm.sf((reach + self.points) / step)
        return float(self.mass @ outside)

    def surviving(self, time: float, z: float) -> _Paths:
        """The paths that are within the bound at `time`, too."""
        from scipy.stats import norm

        reach, step = z * math.sqrt(time), math.sqrt(time - self.time)
        nodes, weights = np.polynomial.legendre.leggauss(NODES)
        inside = _Paths()
        inside.time, inside.points = time, reach * nodes
        density = norm.pdf((inside.points[:, None] - self.points) / step) / step
        inside.mass = reach * weights * (density @ self.mass)
        return inside
