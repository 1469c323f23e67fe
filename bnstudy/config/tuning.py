"""What is chosen on pilots, and which cells of a grid share a choice.

A *point* is what gets a choice of its own: the cells of a grid that differ only in axes outside
`tune.per`, in what is measured, and in the seed.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bnstudy.config import capabilities
from bnstudy.config.address import digest, flatten
from bnstudy.config.grid import put, with_values
from bnstudy.config.overrides import AXES, check_key, checked, parse, sweep_values, validated
from bnstudy.config.schema import Config
from bnstudy.config.settings import GROUPS, Grid, Seeds, StudyConfig, Tune, seed_list
from bnstudy.errors import UserError

KEY = "tune"
OUTSIDE = ("data.fingerprint", "data.source", "model.source", "norm.source", "task.fingerprint")
ADHOC_PILOTS = 3  # of a comparison


@dataclass(frozen=True)
class Tuning:
    """What is chosen on pilots, and which cells of a grid share a choice."""

    tune: Tune
    shared: tuple[str, ...]  # axes of the grid whose values share a choice

    def point(self, cell: Config) -> str:
        """The name of a cell's point.

        A hash of all that can change its training, without tuned settings and shared axes, and
        without the hashes of what lies outside the config. Of an axis that is a whole folder, as
        `model`, what `tune.per` names, as `model.depth`, is kept.
        """
        plain = cell.canonical()
        del plain["seed"], plain["evaluate"]
        free = {*self.tune.axes, *self.shared, *OUTSIDE}
        kept = {
            key: value
            for key, value in flatten(plain).items()
            if key in self.tune.per or not {key, key.partition(".")[0]} & free
        }
        return digest(kept)

    def grid(self, cells: Sequence[Config]) -> str:
        """The name of a grid that is tuned: its points, settings, values and pilot seeds."""
        points = {self.point(cell) for cell in cells}
        return digest([self.tune.model_dump(mode="json", exclude={"pilots"}), sorted(points)])

    def check(self, cell: Config) -> None:
        """Refuse a value that this setting cannot have. Raises UserError."""
        for key, values in self.tune.axes.items():
            for value in values:
                try:
                    variant(cell, {key: value})
                except UserError as error:
                    raise UserError(f"{KEY}: {error}") from None


def variant(cell: Config, values: Mapping[str, Any]) -> Config:
    """The cell with other values, validated; settings that it does not use stay at their defaults.

    Raises:
        UserError: a value that is not allowed.
    """
    tree = cell.model_dump()
    for key, value in values.items():
        put(tree, key, value)
    config = validated(Config, tree, "")
    unused = capabilities.unused(config)
    return with_values(config, {key: unused[key] for key in values if key in unused})


# --- what a study or a command line states -------------------------------------------------------


def tuning_of(study: StudyConfig, scale: str) -> Tuning | None:
    """What a study tunes at a scale; None where it states nothing."""
    grid = study.scales[scale]
    tune = grid.tune or study.tune
    if tune is None:
        return None
    return Tuning(tune, tuple(key for key in grid.axes if key not in tune.per))


def check(study: StudyConfig) -> None:
    """Refuse a study whose tuning cannot be done, at any scale.

    Raises:
        UserError: an unknown setting, one that is an axis, no or unordered values, pilots that
            overlap the seeds of the claims.
    """
    for scale, grid in study.scales.items():
        if (tune := grid.tune or study.tune) is None:
            continue
        try:
            _check_axes(tune.axes, grid)
            for key in tune.per:
                check_key(key)
            check_seeds(tune, grid.seeds)
        except UserError as error:
            raise UserError(f"{KEY} at scale {scale}: {error}") from None


def _check_axes(axes: Mapping[str, Sequence[Any]], grid: Grid | None = None) -> None:
    if not axes:
        raise UserError("no setting is named: axes: {optimizer.lr: [0.05, 0.1, 0.2]}")
    for key, values in axes.items():
        check_key(key)
        if key in GROUPS or key not in AXES or key.startswith(("data.", "evaluate.")):
            raise UserError(
                f"{key} cannot be tuned: only numbers and names of the optimizer, training, norm "
                "and model can, such as optimizer.lr"
            )
        if grid and key in grid.axes:
            raise UserError(f"{key} is an axis of the study: it has every value, not the best one")
        if len(values) < 2:
            raise UserError(f"{key}: {list(values)} leaves nothing to choose: give two values")
        if numeric(values) and list(values) != sorted(set(values)):
            raise UserError(f"{key}: {list(values)} must ascend, each value once")


def numeric(values: Sequence[Any]) -> bool:
    """Whether all values are numbers: such a grid has edges, and can be extended."""
    return all(isinstance(v, int | float) and not isinstance(v, bool) for v in values)


def check_seeds(tune: Tune, seeds: Seeds) -> None:
    """Refuse pilots among the seeds that claims are judged by.

    Raises:
        UserError: they overlap, or are no seeds.
    """
    try:
        pilots = {*seed_list(tune.seeds), *seed_list(tune.pilots)}
        both = sorted(pilots & set(seed_list(seeds)))
    except ValueError as error:
        raise UserError(str(error)) from None
    if both:
        named = f"seed{'s' * (len(both) > 1)} {', '.join(map(str, both))}"
        are = "are pilots" if len(both) > 1 else "is a pilot"
        raise UserError(
            f"{named} {are}, which chose the settings: claims need "
            f"others, such as seeds={max(pilots) + 1}..{max(pilots) + 12}"
        )


def adhoc(text: str, seeds: Sequence[int], choices: Callable[[str], list[str]]) -> Tuning:
    """The tuning of a comparison, from `optimizer.lr=0.05,0.1; optimizer.momentum=0.8,0.9`.

    Every cell gets its own choice, by pilots with the three seeds above the comparison's.

    Raises:
        UserError: an unknown setting, or one with fewer than two values.
    """
    words = [w for part in text.split(";") for w in parse([part.strip()] if part.strip() else [])]
    axes = {}
    for word in words:
        checked(word, choices)
        key = word.key_or_group
        if key in axes:
            raise UserError(f"{KEY}: {key} is given twice: list its values in one place")
        several = word.is_sweep_override()
        axes[key] = sweep_values(word, choices) if several else [word.value()]
    try:
        _check_axes(axes)
    except UserError as error:
        raise UserError(f"{KEY}={text}: {error}") from None
    pilots = [max(seeds) + 1 + i for i in range(ADHOC_PILOTS)]
    return Tuning(Tune(axes=axes, per=[], seeds=pilots, pilots=pilots), shared=())
