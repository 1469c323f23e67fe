"""From a command line to typed runs: Hydra composes, the schema judges, grid.py expands.

Hydra composes the base and each choice of a group once: a composition takes 80 ms, a cell made from
these pieces 0.1 ms.
"""

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hydra import initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from bnstudy.config import arms, tuning
from bnstudy.config.arms import Arm
from bnstudy.config.grid import expand
from bnstudy.config.overrides import (
    check_key,
    checked,
    deciding,
    literal,
    parse,
    quoted,
    rivals_of,
    sweep_values,
    validated,
)
from bnstudy.config.schema import Config
from bnstudy.config.settings import CONFIGS, GROUPS, Settings, StudyConfig
from bnstudy.config.tuned import Tuned, apply
from bnstudy.config.tuning import Tuning
from bnstudy.errors import UserError, unknown

LOOKS = (12, 24, 48)  # where nothing states them
FIRST_LOOK = 6  # seeds: n sign flips give p >= 2 / 2**n, which is 0.0625 for 5 and 0.031 for 6


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
    command: str = ""  # that asked for it, for records; empty: as typed in a shell
    looks: tuple[int, ...] = ()  # numbers of seeds after which to judge; empty: once, after all
    by_hand: tuple[str, ...] = ()  # keys that the command line sets
    tuning: Tuning | None = None  # what pilots choose
    tuned: Tuned = field(default_factory=Tuned)  # what they chose

    @property
    def stated(self) -> bool:
        """Whether its cells are those that the study's YAML states at this scale."""
        return not any(map(deciding, self.by_hand))


@contextmanager
def hydra_session(config_dirs: Sequence[str] = ()) -> Iterator["Composer"]:
    """Hydra, initialised on the project's configs and the folders of the user's own."""
    folders = [Path(folder).expanduser().absolute() for folder in config_dirs]
    for given, folder in zip(config_dirs, folders, strict=True):
        if not folder.is_dir():
            raise UserError(f"--config-dir {given}: there is no such folder")
    ConfigStore.instance().store("schema", Settings().model_dump(mode="json"))
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(CONFIGS), version_base="1.3", job_name="bnstudy"):
        yield Composer(list(map(str, folders)))


class Composer:
    """Composes configurations inside a `hydra_session`."""

    def __init__(self, config_dirs: Sequence[str]) -> None:
        self.hydra: Any = GlobalHydra.instance().hydra
        # the user's folders come after ours; quoted, since a path may hold commas and spaces
        paths = ",".join(quoted(f"file://{folder}") for folder in config_dirs)
        self.search = [f"hydra.searchpath=[{paths}]"] if config_dirs else []
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
            raise UserError(text) from None
        except YAMLError as error:  # in a folder of the user's own: its text names file and line
            raise UserError(f"a config is not valid YAML: {error}") from None

    def study(self, name: str) -> StudyConfig:
        """The study of this name, as its YAML states it.

        Raises:
            UserError: no such study; a file that states it badly, which the message names.
        """
        names = [n for n in self.choices("study") if n != "null"]
        if name not in names:
            raise unknown("study", name, names)
        file = self.study_file(name)
        try:
            stated = self.compose([f"+study={name}"]).get("study")
            node: Any = OmegaConf.to_container(stated, resolve=True) if stated is not None else {}
        except (UserError, OmegaConfBaseException) as error:
            raise UserError(f"{file}: {error}") from None
        if not isinstance(node, dict):
            raise UserError(f"{file}: a study is a mapping: title: ..., claim: ..., scales: ...")
        study = validated(StudyConfig, {"name": name, **node}, str(file))
        for grid in study.scales.values():
            for key in [*study.fixed, *grid.fixed, *grid.axes]:
                try:
                    check_key(key)
                except UserError as error:
                    raise UserError(f"{file}: {error}") from None
        try:
            tuning.check(study)
        except UserError as error:
            raise UserError(f"{file}: {error}") from None
        return study

    def study_file(self, name: str) -> Path:
        """The YAML of a study: the package's, or else the user's."""
        places = [CONFIGS, *map(Path, self.config_dirs)]
        files = [place / "study" / f"{name}.yaml" for place in places]
        return next((file for file in files if file.is_file()), files[0])

    def studies(self, words: Sequence[str]) -> list[StudyConfig]:
        """The studies that words name, each once: a study, a group of studies, or `all`."""
        names = [n for n in self.choices("study") if n != "null"]
        # groups are read from the files only when a word is no study's name
        every = [] if set(words) <= set(names) else self._readable(names, "all" in words)
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

    def _readable(self, names: Sequence[str], every: bool) -> list[StudyConfig]:
        """Studies by name; those that are stated badly are passed over unless all are wanted."""
        found = []
        for name in names:
            try:
                found.append(self.study(name))
            except UserError:
                if every:
                    raise
        return found

    def request(
        self, overrides: Sequence[str], study: StudyConfig | None = None, sweep: bool = True
    ) -> Request:
        """The cells that the overrides describe, every one validated.

        `sweep` says whether comma lists are allowed. Within a study the command line wins: an
        override of an axis replaces the axis, one of a fixed value replaces the value. A setting
        that the model or norm of a cell does not use is at its default there. Settings that pilots
        chose are applied as `tune` says; see `tuned.apply`.

        Raises:
            UserError: unknown key, group choice or study; a value of the wrong type; a setting that
                no cell uses; impossible combinations. The message says what is allowed.
        """
        chosen, rest = self._arms(overrides, study, sweep)
        adhoc, rest = self._adhoc(rest, study)
        words = [checked(o, self.choices) for o in parse(rest)]
        cleared = rivals_of(words)
        fixed, axes = self._stated(study, words) if study else ({}, {})
        fixed = {k: literal(v) for k, v in fixed.items() if k not in cleared}
        axes = {k: v for k, v in axes.items() if k not in cleared}
        plain = [f"{k}=null" for k in cleared]
        for word in words:
            key = word.key_or_group
            fixed.pop(key, None)
            if not word.is_sweep_override():
                axes.pop(key, None)
                plain.append(str(word.input_line).lstrip("+"))
            elif sweep:
                axes[key] = sweep_values(word, self.choices)
            else:
                raise UserError(
                    f"{key} has several values: 'bnstudy train -m' trains the grid, "
                    "'bnstudy compare' trains it and prints the table"
                )
        if chosen:
            if any(word.key_or_group == "norm" for word in words):
                raise UserError("norm= and arms= both choose the norms: give one of them")
            axes = {"norm": list(chosen), **axes}
        # Hydra takes group choices before values: `norm.eps=... norm=group` in any order
        base_overrides = [*(f"{k}={v}" for k, v in fixed.items()), *plain]
        base = self.compose(base_overrides)
        by_hand = tuple(o.key_or_group for o in words)
        grid = expand(
            plain_tree(base),
            self._pieces(base_overrides, axes, chosen),
            axes,
            exclude=study.exclude if study else [],
            given={*fixed, *axes, *cleared, *by_hand},
            by_hand=by_hand,
        )
        seeds, looks = seeds_and_looks(grid.settings, study, by_hand)
        chosen_on_pilots = tuning.tuning_of(study, grid.settings.scale.name) if study else None
        if adhoc:
            chosen_on_pilots = tuning.adhoc(adhoc, seeds, self.choices)
            for key in chosen_on_pilots.tune.axes:
                if key in (*axes, *by_hand):
                    raise UserError(f"{key} is tuned and given a value: leave out one of them")
        if chosen_on_pilots:
            try:
                chosen_on_pilots.check(grid.cells[0])
            except UserError as error:
                where = f"{self.study_file(study.name)}: " if study else ""
                raise UserError(f"{where}{error}") from None
        request = Request(
            settings=grid.settings,
            cells=grid.cells,
            points=grid.points,
            seeds=seeds,
            axes=tuple((k, tuple(v)) for k, v in axes.items()),
            hydra=base,
            study=study,
            overrides=tuple(overrides),
            excluded=grid.excluded,
            looks=looks,
            by_hand=by_hand,
            tuning=chosen_on_pilots,
        )
        return apply(request, self)

    @staticmethod
    def _stated(
        study: StudyConfig, words: Sequence[Override]
    ) -> tuple[dict[str, Any], dict[str, list[Any]]]:
        """Fixed values (seeds and looks, too) and axes of a study at the scale that words name."""
        chosen = [o for o in words if o.key_or_group == "scale"]
        if chosen and chosen[0].is_sweep_override():
            raise UserError(f"{chosen[0].input_line}: a study runs at one scale at a time")
        scale = str(chosen[0].value()) if chosen else "quick"
        if scale not in study.scales:
            raise unknown(f"scale of the study {study.name}", scale, study.scales)
        grid = study.scales[scale]
        fixed = {**study.fixed, **grid.fixed, "seeds": grid.seeds, "looks": grid.looks}
        return fixed, {k: list(v) for k, v in grid.axes.items()}

    def _arms(
        self, overrides: Sequence[str], study: StudyConfig | None, sweep: bool
    ) -> tuple[dict[str, Arm], Sequence[str]]:
        """The arms that the overrides give, and the overrides without them."""
        texts = [o for o in overrides if o.partition("=")[0].lstrip("+") == arms.KEY]
        if not texts:
            return {}, overrides
        if study or not sweep:
            raise UserError(
                f"{texts[0]}: arms are for 'bnstudy compare' and 'bnstudy train -m'"
                + (f"; the study {study.name} has its own" if study else "")
            )
        if len(texts) > 1:
            raise UserError(f"'{arms.KEY}' is given {len(texts)} times: say it once")
        found = arms.read(texts[0].partition("=")[2], self.choices)
        return found, [o for o in overrides if o not in texts]

    @staticmethod
    def _adhoc(overrides: Sequence[str], study: StudyConfig | None) -> tuple[str, Sequence[str]]:
        """The settings that tune=KEY=V1,V2,... names, and the overrides with tune=auto instead."""
        texts = [o for o in overrides if o.startswith(f"{tuning.KEY}=") and o.count("=") > 1]
        if not texts:
            return "", overrides
        if study:
            raise UserError(
                f"{texts[0]}: a study states what it tunes in its YAML; tune=auto tunes that first"
            )
        if len(texts) > 1:
            raise UserError(f"'{tuning.KEY}' is given {len(texts)} times: say it once, with ;")
        rest = [f"{tuning.KEY}=auto" if o in texts else o for o in overrides]
        return texts[0].partition("=")[2], rest

    def _pieces(
        self, base: list[str], axes: dict[str, list[Any]], chosen: dict[str, Arm]
    ) -> dict[tuple[str, Any], Any]:
        """The node of every group choice on an axis, and of every arm.

        Groups do not overlap, so the i-th choices of all axes are composed together.
        """
        pieces: dict[tuple[str, Any], Any] = {
            ("norm", label): plain_tree(self.compose([*base, *arm.overrides]))["norm"]
            for label, arm in chosen.items()
        }
        groups = {k: v for k, v in axes.items() if k in GROUPS and not (chosen and k == "norm")}
        for key, values in groups.items():
            for value in values:
                if value not in (allowed := self.choices(key)):
                    raise unknown(key, str(value), allowed)
        for i in range(max((len(v) for v in groups.values()), default=0)):
            these = {k: v[min(i, len(v) - 1)] for k, v in groups.items()}
            node = plain_tree(self.compose([*(f"{k}={v}" for k, v in these.items()), *base]))
            for key, value in these.items():
                pieces[key, value] = node[key]
        return pieces


def seeds_and_looks(
    settings: Settings, study: StudyConfig | None, given: Collection[str]
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The seeds that a command asks for, at most, and the numbers of them at which it judges.

    Without until=conclusive there are no looks. With it, the seeds end at the last look; outside
    studies, which state them, the looks are LOOKS and the seeds follow from the looks.

    Raises:
        UserError: bad seeds; looks that are not there, do not grow, begin too early or go beyond
            the seeds; looks that nothing would use.
    """
    try:
        seeds = settings.seed_list()
    except ValueError as error:
        raise UserError(str(error)) from None
    if settings.until == "all":
        if "looks" in given:
            raise UserError(
                f"looks={settings.looks} are used with until=conclusive only: give both or none"
            )
        return tuple(seeds), ()
    looks = settings.looks or ([] if study else list(LOOKS))
    if study and not looks:
        raise UserError(
            f"until=conclusive: the study {study.name} states no looks; give the "
            "numbers of seeds after which it is judged, for example looks=[12,24,48]"
        )
    if looks != sorted(set(looks)):
        raise UserError(f"looks={looks}: numbers of seeds must grow, as in looks=[12,24,48]")
    if looks[0] < FIRST_LOOK:
        raise UserError(
            f"looks={looks}: the first look needs at least {FIRST_LOOK} seeds; with fewer no "
            "sign-flip test can reach the 5 % level"
        )
    if study is None and "seeds" not in given:
        seeds = list(range(looks[-1]))
    if looks[-1] > len(seeds):
        whose = f"the study {study.name} has" if study and "seeds" not in given else "there are"
        raise UserError(
            f"looks={looks}: the last look needs {looks[-1]} seeds and {whose} {len(seeds)}; "
            f"give more, for example seeds={seeds[0]}..{seeds[0] + looks[-1] - 1}"
        )
    return tuple(seeds[: looks[-1]]), tuple(looks)


def plain_tree(config: DictConfig) -> dict[str, Any]:
    """The composed configuration as plain dicts, without Hydra's and the study's nodes."""
    tree: Any = OmegaConf.to_container(OmegaConf.masked_copy(config, [*Settings.model_fields]))
    return tree
