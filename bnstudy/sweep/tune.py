"""The search for settings on pilots: which to train next, and which is best. Pure."""

import itertools
import math
from collections.abc import Sequence
from typing import Any

from bnstudy.config import Config
from bnstudy.config.tuned import Choice, Trial
from bnstudy.config.tuning import OUTSIDE, Tuning, numeric, variant
from bnstudy.errors import UserError

EXTENSIONS = 2  # of a grid whose best value is its first or last
VALIDATION = {"data.test_part": "validation"}  # pilots do not see the test part


class Point:
    """The search at one point: every combination of its values, until the best has neighbours.

    where: axis -> value as it was written, for readers.
    name:  of the point, `Tuning.point`.
    cell:  a cell of the point, the first of those that share its choice.
    axes:  tuned settings that the cell uses -> values; `extend` adds to them.
    """

    def __init__(self, tuning: Tuning, where: dict[str, Any], cell: Config) -> None:
        self.where, self.name, self.cell = where, tuning.point(cell), cell
        self.axes = {
            key: list(values)
            for key, values in tuning.tune.axes.items()
            if len({variant(cell, {key: value}).cell for value in values}) > 1
        }
        self.trials: dict[tuple[Any, ...], Trial] = {}
        self.seen: dict[tuple[Any, ...], float] = {}  # mean error, failed pilots at their own
        self.outside: dict[str, str] = {}

    def missing(self) -> dict[tuple[Any, ...], Config]:
        """The combinations without a trial, and the pilots' cell of each."""
        return {
            values: self._pilot(values)
            for values in itertools.product(*self.axes.values())
            if values not in self.trials
        }

    def _pilot(self, values: Sequence[Any]) -> Config:
        return variant(self.cell, {**self._named(values), **VALIDATION})

    def _named(self, values: Sequence[Any]) -> dict[str, Any]:
        return dict(zip(self.axes, values, strict=True))

    def tried(
        self, values: tuple[Any, ...], cell: Config, errors: Sequence[float], failed: int,
        runs: Sequence[str], seen: Sequence[float],
    ) -> None:  # fmt: skip
        """Note the outcome of a combination.

        Args:
            cell: the pilots', with the hashes of what lies outside it filled in.
            errors: validation error of each pilot, a fraction; of one that failed, chance.
            failed: how many failed.
            runs: addresses of the pilots.
            seen: validation error of each pilot as measured, failed or not; chance if it has none.
        """
        mean = math.fsum(errors) / len(errors)
        self.trials[values] = Trial(
            set=self._named(values), val_error=mean, per_seed=list(errors), failed=failed,
            runs=list(runs),
        )  # fmt: skip
        self.seen[values] = math.fsum(seen) / len(seen)
        flat = cell.flat()
        self.outside = {key: flat[key] for key in OUTSIDE if flat.get(key)}

    @property
    def best(self) -> tuple[Any, ...]:
        """The combination of least validation error; of equal ones the first, in grid order.

        Where every pilot failed, that of least error as measured, and then the one nearest the
        middle: an arm that learns too little to count is to be shown where it learns most.
        """
        return min(itertools.product(*self.axes.values()), key=self._rank)

    def _rank(self, values: tuple[Any, ...]) -> tuple[float, float, int]:
        trial = self.trials[values]
        if trial.failed < len(trial.per_seed):
            return trial.val_error, 0.0, 0
        places = (
            abs(2 * axis.index(value) - len(axis) + 1)
            for axis, value in zip(self.axes.values(), values, strict=True)
        )
        return trial.val_error, self.seen[values], sum(places)

    @property
    def edges(self) -> set[tuple[str, int]]:
        """Numeric settings, and the ends of their grids (0 or -1) where the error is least.

        Both ends where equal errors leave open which way to go, as when every pilot fails.
        """
        least = self.trials[self.best].val_error
        equal = [trial.set for trial in self.trials.values() if trial.val_error == least]
        return {
            (key, end)
            for key, values in self.axes.items()
            for end in (0, -1)
            if numeric(values) and any(found[key] == values[end] for found in equal)
        }

    def extend(self) -> bool:
        """Add the next value beyond each edge where there is one; whether there was any."""
        found = False
        for key, end in self.edges:
            values = self.axes[key]
            new = beyond(values[::-1] if end else values)
            if new is not None and self._allowed(key, new):
                values.insert(len(values) if end else 0, new)
                found = True
        return found

    def _allowed(self, key: str, value: Any) -> bool:
        try:
            variant(self.cell, {key: value})
        except UserError:
            return False
        return True

    def choice(self) -> Choice:
        """The best combination, and all that were tried in grid order."""
        order, best = itertools.product(*self.axes.values()), self._named(self.best)
        return Choice(
            where=self.where,
            point=self.name,
            set=best,
            edge=any(best[key] == self.axes[key][end] for key, end in self.edges),
            outside=self.outside,
            trials=[self.trials[values] for values in order],
        )


def beyond(values: Sequence[float]) -> float | None:
    """The next value before the first, in the ratio of the first two; None where none can be.

    Of whole numbers a whole one.
    """
    first, second = values[:2]
    if min(first, second) <= 0:
        return None
    found = float(f"{first * first / second:.6g}")
    if all(isinstance(value, int) for value in values):
        return int(found) if found.is_integer() else None
    return found


def points(
    tuning: Tuning, cells: Sequence[Config], places: Sequence[dict[str, Any]]
) -> list[Point]:
    """The points of a grid at which there is something to choose.

    Args:
        cells: of the grid.
        places: of each cell: axis -> value as it was written.

    Raises:
        UserError: a value that is not allowed; no cell uses any of the settings.
    """
    found: dict[str, Point] = {}
    for cell, place in zip(cells, places, strict=True):
        if tuning.point(cell) not in found:
            where = {key: value for key, value in place.items() if key not in tuning.shared}
            found[tuning.point(cell)] = Point(tuning, where, cell)
    there = [point for point in found.values() if point.axes]
    for key in tuning.tune.axes:
        if not any(key in point.axes for point in there):
            raise UserError(f"tune: no cell of the grid uses {key}")
    return there
