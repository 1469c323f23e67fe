"""The cells of a grid: every combination of its axes, once, on the typed config."""

import itertools
import math
from collections.abc import Collection, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

from bnstudy.config import capabilities
from bnstudy.config.address import flatten
from bnstudy.config.overrides import MOST_CELLS, validated
from bnstudy.config.schema import Config
from bnstudy.config.settings import GROUPS, Settings
from bnstudy.errors import UserError


@dataclass(frozen=True)
class Expansion:
    """Cells that differ from each other, with seed 0, and where in the grid each was found."""

    cells: tuple[Config, ...]
    points: tuple[dict[str, Any], ...]  # of each cell: axis -> value as it was written
    excluded: int  # combinations that the study leaves out
    settings: Settings  # of the last cell; all cells share what is not in a Config


def expand(
    base: dict[str, Any],
    pieces: Mapping[tuple[str, Any], dict[str, Any]],
    axes: Mapping[str, Sequence[Any]],
    exclude: Sequence[dict[str, Any]] = (),
    given: Collection[str] = (),
    by_hand: Sequence[str] = (),
) -> Expansion:
    """Every combination of the axes that is another run.

    A setting that the chosen model or norm does not use is reset to its default, so that it never
    enters an address; of cells that become equal the first stays.

    Args:
        base: the settings without the axes, as a tree.
        pieces: (group, choice) -> the group's part of the tree, for the groups among the axes.
        axes: group or dotted name -> values.
        exclude: rules of combinations to leave out, see `matches`.
        given: keys that were set one by one, axes included; other values come from the files of
            choices, where a setting that is not used is a mistake.
        by_hand: those of them that the command line names: at least one cell must use each.

    Raises:
        UserError: an impossible value or combination; a setting that is not used; rules that leave
            nothing.
    """
    size = math.prod(len(values) for values in axes.values())
    if size > MOST_CELLS:
        raise UserError(f"the grid has {size:,} cells, {MOST_CELLS:,} at most: shorten an axis")
    found: dict[str, tuple[Config, dict[str, Any]]] = {}
    excluded = 0
    idle: dict[str, Any] = {}  # by hand, changed, and not used by the first cell that had it so
    in_use: set[str] = set()
    for values in itertools.product(*axes.values()):
        point = dict(zip(axes, values, strict=True))
        tree = deepcopy(base)
        tree.update({key: deepcopy(pieces[key, v]) for key, v in point.items() if key in GROUPS})
        for key, value in point.items():
            if key not in GROUPS:
                put(tree, key, value)
        flat = {**flatten(tree), **point}
        if any(matches(flat, rule) for rule in exclude):
            excluded += 1
            continue
        settings = validated(Settings, tree, "")
        config = settings.config(given)
        defaults = capabilities.unused(config)
        in_use |= set(by_hand) - defaults.keys()
        for key in changed(config, defaults):
            error = capabilities.refusal(key, value_of(config, key), config)
            if key not in given:
                raise error
            if key in by_hand:
                idle.setdefault(key, error)
        config = with_values(config, defaults)
        found.setdefault(config.cell, (config, point))
    if not found:
        raise UserError(
            "the study excludes every combination of "
            + "; ".join(f"{k}: {', '.join(map(str, v))}" for k, v in axes.items())
        )
    for key, error in idle.items():
        if key not in in_use:
            raise error
    return Expansion(
        cells=tuple(config for config, _ in found.values()),
        points=tuple(point for _, point in found.values()),
        excluded=excluded,
        settings=settings,
    )


def value_of(config: Config, key: str) -> Any:
    """The value of a dotted name."""
    group, _, name = key.partition(".")
    return getattr(getattr(config, group), name)


def changed(config: Config, defaults: Mapping[str, Any]) -> list[str]:
    """The dotted names whose values are not these."""
    return [key for key, default in defaults.items() if value_of(config, key) != default]


def with_values(config: Config, values: Mapping[str, Any]) -> Config:
    """The config with other values of dotted names."""
    parts: dict[str, dict[str, Any]] = {}
    for key in changed(config, values):
        group, _, name = key.partition(".")
        parts.setdefault(group, {})[name] = values[key]
    return config.model_copy(
        update={g: getattr(config, g).model_copy(update=own) for g, own in parts.items()}
    )


def put(tree: dict[str, Any], key: str, value: Any) -> None:
    """Set a dotted key."""
    *path, last = key.split(".")
    for name in path:
        tree = tree[name]
    tree[last] = value


def matches(flat: dict[str, Any], rule: dict[str, Any]) -> bool:
    """Whether a cell has all the values of an `exclude` rule.

    A group stands for its choice on the axis, or its name: both norm=mine and the `group` it is.
    """
    for key, wanted in rule.items():
        values = [flat[k] for k in (key, f"{key}.name") if k in flat]
        if not any(v in (wanted if isinstance(wanted, list) else [wanted]) for v in values):
            return False
    return True
