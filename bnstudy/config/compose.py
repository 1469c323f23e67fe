"""From a command line to typed runs: Hydra composes, the schema judges, the grid is expanded here.

Hydra composes the base and each choice of a group once. The cells of a grid are then made from
these pieces and validated against the schema: 0.1 ms a cell, where a composition takes 80 ms.
"""

import itertools
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, TypeVar

from hydra import initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Glob, Override
from hydra.errors import HydraException, OverrideParseException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import BaseModel, ValidationError
from yaml import YAMLError

from bnstudy.config import (
    CONFIGS,
    DURATIONS,
    GROUPS,
    Config,
    Settings,
    StudyConfig,
    axis_keys,
    flatten,
    schema_keys,
)
from bnstudy.errors import UserError, unknown

# naming one of these on the command line clears the others' defaults; naming two is refused
EXCLUSIVE = (
    tuple(f"train.{unit}" for unit in DURATIONS),
    ("norm.num_groups", "norm.channels_per_group"),
)
AXES = axis_keys()
Model = TypeVar("Model", bound=BaseModel)


@dataclass(frozen=True)
class Request:
    """What a command line asks for: cells, how to execute them, and the study it belongs to."""

    settings: Settings
    cells: tuple[Config, ...]  # with seed 0: their seeds are `seeds`
    seeds: tuple[int, ...]
    axes: tuple[tuple[str, tuple[Any, ...]], ...]
    points: tuple[dict[str, Any], ...]  # of each cell: axis -> value as it was written
    hydra: DictConfig  # the composed base, with Hydra's own node: what a launcher is made from
    study: StudyConfig | None
    overrides: tuple[str, ...]
    excluded: int = 0


@contextmanager
def hydra_session(config_dirs: Sequence[str] = ()) -> Iterator["Composer"]:
    """Hydra, initialised on the project's configs and the folders of the user's own."""
    for folder in config_dirs:
        if not Path(folder).is_dir():
            raise UserError(f"--config-dir {folder}: there is no such folder")
    ConfigStore.instance().store("schema", Settings().model_dump(mode="json"))
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(CONFIGS), version_base="1.3", job_name="bnstudy"):
        yield Composer([str(Path(f).absolute()) for f in config_dirs])


class Composer:
    """Composes configurations inside a `hydra_session`."""

    def __init__(self, config_dirs: Sequence[str]) -> None:
        self.hydra = GlobalHydra.instance().hydra
        # the user's folders come after ours; quoted, since a path may hold commas and spaces
        quoted = ",".join("'file://" + d.replace("'", "\\'") + "'" for d in config_dirs)
        self.search = [f"hydra.searchpath=[{quoted}]"] if config_dirs else []
        self.config_dirs = list(config_dirs)

    @property
    def loader(self) -> Any:
        return self.hydra.config_loader

    def choices(self, group: str) -> list[str]:
        """The names that a group offers, the user's own folders included."""
        names = set(self.loader.get_group_options(group))
        for folder in self.config_dirs:
            names |= {p.stem for p in (Path(folder) / group).glob("*.yaml")}
        return sorted(names)

    def compose(self, overrides: Sequence[str]) -> DictConfig:
        """One composition with Hydra's own node in it."""
        try:
            return self.hydra.compose_config(
                config_name="config",
                overrides=[*self.search, *overrides],
                run_mode=RunMode.MULTIRUN,
                from_shell=False,
                with_log_configuration=False,
            )
        except (HydraException, OmegaConfBaseException) as error:
            text = str(error).split("\nConfig search path")[0].strip()
            if "submitit" in text:
                text += "\nThe Slurm launcher is an extra: uv sync --extra slurm in the checkout."
            raise UserError(text) from None
        except YAMLError as error:  # in a folder of the user's own: its text names file and line
            raise UserError(f"a config is not valid YAML: {error}") from None

    def study(self, name: str) -> StudyConfig:
        """The study of this name, as its YAML states it."""
        names = [n for n in self.choices("study") if n != "null"]
        if name not in names:
            raise unknown("study", name, names)
        node = OmegaConf.to_container(self.compose([f"+study={name}"]).study, resolve=True)
        return validated(StudyConfig, {"name": name, **node}, f"configs/study/{name}.yaml")

    def studies(self, words: Sequence[str]) -> list[StudyConfig]:
        """The studies that words name, each once: a study, a group of studies, or `all`."""
        names = [n for n in self.choices("study") if n != "null"]
        # a group is read from the files only when a word is no study's name
        every = [] if set(words) <= set(names) else [self.study(name) for name in names]
        groups = {s.group for s in every} - {""}
        found: dict[str, StudyConfig] = {}
        for word in words:
            if word in names:
                found.setdefault(word, self.study(word))
            elif word in groups or word == "all":
                found |= {s.name: s for s in every if word in (s.group, "all")}
            else:
                raise unknown("study", word, [*names, *sorted(groups), "all"])
        return list(found.values())

    def request(
        self, overrides: Sequence[str], study: StudyConfig | None = None, sweep: bool = True
    ) -> Request:
        """The cells that the overrides describe, every one validated.

        `sweep` says whether comma lists are allowed. Within a study the command line wins: an
        override of an axis replaces the axis, one of a fixed value replaces the value.

        Raises:
            UserError: unknown key, group choice or study; a value of the wrong type; impossible
                combinations. The message says what is allowed.
        """
        parsed = [self._checked(o) for o in parse(overrides)]
        named = {o.key_or_group for o in parsed}
        cleared = []
        for rivals in EXCLUSIVE:
            if len(both := [k for k in rivals if k in named]) > 1:
                raise UserError(f"{' and '.join(both)} were both given: exactly one is allowed")
            cleared += [k for k in rivals if both and k not in both]
        axes: dict[str, list[Any]] = {}
        fixed: dict[str, str] = {}
        if study is not None:
            chosen = [o for o in parsed if o.key_or_group == "scale"]
            if chosen and chosen[0].is_sweep_override():
                raise UserError(f"{chosen[0].input_line}: a study runs at one scale at a time")
            scale = chosen[0].value() if chosen else "quick"
            if scale not in study.scales:
                raise unknown(f"scale of the study {study.name}", str(scale), study.scales)
            grid = study.scales[scale]
            fixed = {k: literal(v) for k, v in {**study.fixed, **grid.fixed}.items()}
            fixed["seeds"] = literal(grid.seeds)
            axes = {k: list(v) for k, v in grid.axes.items()}
            for key in [*fixed, *axes]:
                self._known(key)
        fixed = {k: v for k, v in fixed.items() if k not in cleared}
        axes = {k: v for k, v in axes.items() if k not in cleared}
        plain = [f"{k}=null" for k in cleared]
        for override in parsed:
            key = override.key_or_group
            if override.is_sweep_override():
                if key == "seeds":
                    raise UserError("seeds=3,7 is a grid axis: write seeds=[3,7] for these two")
                if key not in GROUPS and key not in AXES:
                    raise UserError(
                        f"{override.input_line}: {key} says how to compute, not what, so it cannot "
                        "be an axis of a grid: give one value"
                    )
                fixed.pop(key, None)
                axes[key] = self._values(override)
                if not sweep:
                    raise UserError(
                        f"{key} has several values: 'bnstudy train -m' trains the grid, "
                        "'bnstudy compare' trains it and prints the table"
                    )
            else:
                fixed.pop(key, None)
                axes.pop(key, None)
                plain.append(override.input_line.lstrip("+"))
        # Hydra takes group choices before values: `norm.eps=... norm=group` in any order
        base_overrides = [*(f"{k}={v}" for k, v in fixed.items()), *plain]
        base = self.compose(base_overrides)
        tree = plain_tree(base)
        pieces = self._pieces(base_overrides, axes)
        found: dict[str, tuple[Config, dict[str, Any]]] = {}
        excluded = 0
        for values in itertools.product(*axes.values()):
            cell = deepcopy(tree)
            for key, value in zip(axes, values, strict=True):
                if key in GROUPS:
                    cell[key] = deepcopy(pieces[key, value])
            for key, value in zip(axes, values, strict=True):
                if key not in GROUPS:
                    put(cell, key, value)
            point = dict(zip(axes, values, strict=True))
            flat = {**flatten(cell), **point}
            if study is not None and any(matches(flat, rule) for rule in study.exclude):
                excluded += 1
                continue
            settings = validated(Settings, cell, "")  # cells share all that is not in a Config
            config = settings.config()
            found.setdefault(config.cell, (config, point))
        if not found:
            raise UserError(
                f"the study {study.name if study else ''} excludes every combination of "
                + "; ".join(f"{k}: {', '.join(map(str, v))}" for k, v in axes.items())
            )
        try:
            seeds = tuple(settings.seed_list())
        except ValueError as error:
            raise UserError(str(error)) from None
        return Request(
            settings=settings,
            cells=tuple(config for config, _ in found.values()),
            points=tuple(point for _, point in found.values()),
            seeds=seeds,
            axes=tuple((k, tuple(v)) for k, v in axes.items()),
            hydra=base,
            study=study,
            overrides=tuple(overrides),
            excluded=excluded,
        )

    def _values(self, override: Override) -> list[Any]:
        """The values of a grid axis: a comma list, range(...), or glob(...) over a group."""
        key, value = override.key_or_group, override.value()
        if not isinstance(value, Glob):
            return list(override.sweep_iterator())
        names = value.filter(self.choices(key)) if key in GROUPS else []
        if not names:
            raise UserError(f"{override.input_line} matches nothing: write a comma list")
        return names

    def _pieces(self, base: list[str], axes: dict[str, list[Any]]) -> dict[tuple[str, Any], Any]:
        """The node of every group choice on an axis.

        Groups do not overlap, so the i-th choices of all axes are composed together.
        """
        groups = {k: v for k, v in axes.items() if k in GROUPS}
        for key, values in groups.items():
            for value in values:
                if value not in (allowed := self.choices(key)):
                    raise unknown(key, str(value), allowed)
        pieces = {}
        for i in range(max((len(v) for v in groups.values()), default=0)):
            chosen = {k: v[min(i, len(v) - 1)] for k, v in groups.items()}
            node = plain_tree(self.compose([*(f"{k}={v}" for k, v in chosen.items()), *base]))
            for key, value in chosen.items():
                pieces[key, value] = node[key]
        return pieces

    def _checked(self, override: Override) -> Override:
        """An override whose key exists and, for a group, whose choice exists."""
        key = override.key_or_group
        if key == "hydra" or key.startswith(("hydra.", "hydra/")):
            return override
        if override.is_delete():
            raise UserError(f"~{key}: nothing can be deleted from a run; set it to null instead")
        self._known(key)
        if key not in GROUPS or override.is_sweep_override():
            return override
        if str(override.value()) not in (allowed := self.choices(key)):
            raise unknown(key, str(override.value()), allowed)
        return override

    @staticmethod
    def _known(key: str) -> None:
        if key in GROUPS or key in (leaves := schema_keys()):
            return
        if key == "study":
            raise UserError("a study is named without 'study=': bnstudy study NAME")
        if key in {leaf.rpartition(".")[0] for leaf in leaves}:
            inside = [leaf for leaf in leaves if leaf.startswith(key + ".")]
            raise UserError(f"'{key}' is a folder of keys; set one of {', '.join(inside)}")
        raise unknown_key(key, leaves)


def unknown_key(key: str, leaves: Sequence[str]) -> UserError:
    """The error for a key that the schema lacks, with the nearest one.

    That is sought among siblings first (norm.grp), then by the last name alone (lr for
    optimizer.lr).
    """
    folder, last = key.partition(".")[0], key.rpartition(".")[2]
    listed = [leaf for leaf in leaves if leaf.startswith(f"{folder}.")] if folder != last else []
    listed = listed or [*GROUPS, *leaves]
    tails = {leaf.rpartition(".")[2]: leaf for leaf in reversed(listed)}
    near = [tails[t] for t in get_close_matches(last, tails, n=1, cutoff=0.4)]
    hint = f" Did you mean '{near[0]}'?" if near else ""
    return UserError(f"unknown key '{key}'.{hint} Allowed: {', '.join(listed)}.")


def parse(overrides: Sequence[str]) -> list[Override]:
    """Overrides in Hydra's grammar; a key given twice is refused."""
    for text in overrides:
        if text.startswith("=") or ("=" not in text and not text.startswith("~")):
            raise UserError(f"'{text}' is not an override: write key=value")
    try:
        parsed = OverridesParser.create().parse_overrides(list(overrides))
    except OverrideParseException as error:
        raise UserError(f"{error.override}: {str(error).splitlines()[0]}") from None
    keys = [o.key_or_group for o in parsed]
    for key in keys:
        if keys.count(key) > 1:
            raise UserError(f"'{key}' is given {keys.count(key)} times: say it once")
    return parsed


def plain_tree(config: DictConfig) -> dict[str, Any]:
    """The composed configuration as plain dicts, without Hydra's and the study's nodes."""
    tree: Any = OmegaConf.to_container(OmegaConf.masked_copy(config, [*Settings.model_fields]))
    return tree


def literal(value: Any) -> str:
    """A YAML value in Hydra's override grammar."""
    return value if isinstance(value, str) else json.dumps(value).replace('"', "'")


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


def validated(model: type[Model], tree: dict[str, Any], where: str) -> Model:
    """The tree as a typed object; a mistake becomes one message that names the key."""
    try:
        return model.model_validate(tree)
    except ValidationError as error:
        lines = [_teach(e, model) for e in error.errors(include_url=False)]
        head = f"{where}: " if where else ""
        raise UserError(head + "; ".join(dict.fromkeys(lines))) from None


def _teach(error: Any, model: type[BaseModel]) -> str:
    key = ".".join(str(part) for part in error["loc"] if part not in ("int", "list[int]"))
    if error["type"] == "value_error":
        return error["msg"].removeprefix("Value error, ")
    if error["type"] == "extra_forbidden":
        leaves = schema_keys() if model is Settings else [*model.model_fields]
        return str(unknown_key(key, leaves)).removesuffix(".")
    hint = ""
    if error["type"] == "literal_error":
        names = [n.strip("' ") for n in error["ctx"]["expected"].replace(" or ", ",").split(",")]
        near = get_close_matches(str(error["input"]), names, n=1, cutoff=0.4)
        hint = f" Did you mean '{near[0]}'?" if near else ""
    must = error["msg"].replace("Input should be", "it must be", 1)
    return f"{key}={error['input']} is not allowed: {must}.{hint}"
