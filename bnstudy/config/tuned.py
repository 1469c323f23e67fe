"""The choices that pilots made: their file, and the cells of a request with them."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from pydantic import Field

from bnstudy.config.address import RESULTS_VERSION, digest
from bnstudy.config.grid import changed, value_of
from bnstudy.config.overrides import check_key, validated
from bnstudy.config.part import Part
from bnstudy.config.schema import Config
from bnstudy.config.settings import CONFIGS, HERE, Tune
from bnstudy.config.tuning import check_seeds, variant
from bnstudy.errors import UserError

if TYPE_CHECKING:
    from bnstudy.config.compose import Composer, Request


class Trial(Part):
    """One value of the tuned settings at one point."""

    set: dict[str, Any]
    val_error: float  # mean over the pilot seeds, a fraction; failures count at chance
    per_seed: list[float]
    failed: int
    runs: list[str]  # addresses of the pilots


class Choice(Part):
    """The settings chosen at one point, and the pilots behind them."""

    where: dict[str, Any]  # axis -> value as it was written, for readers
    point: str  # its name, `Tuning.point`
    set: dict[str, Any]
    edge: bool  # the best value is the last of an extended grid
    outside: dict[str, str] = Field({}, description="hashes of what the pilots took from outside")
    trials: list[Trial]


class Choices(Part):
    """A file of choices; equal commands on equal records write equal bytes."""

    command: str  # that makes it
    results_version: int
    study: str  # empty: a comparison's
    scale: str
    grid: str  # `Tuning.grid` of what was tuned
    tune: Tune
    choices: list[Choice]

    @cached_property
    def hash(self) -> str:
        """Names the choices and the evidence for them; for registrations."""
        return digest(self.model_dump(mode="json", exclude={"command"}))

    def text(self) -> str:
        """As YAML, one line for each value tried."""
        lines = [
            f"# made by `{self.command}`; not edited by hand",
            f"command: {_flow(self.command)}",
            f"results_version: {self.results_version}",
            f"study: {_flow(self.study)}",
            f"scale: {_flow(self.scale)}",
            f"grid: {_flow(self.grid)}",
            f"tune: {_flow(self.tune.model_dump(mode='json'))}",
            "choices:",
        ]
        for choice in self.choices:
            plain = choice.model_dump(mode="json")
            trials = plain.pop("trials")
            head = [f"{key}: {_flow(value)}" for key, value in plain.items()]
            lines += [f"- {head[0]}", *(f"  {line}" for line in head[1:]), "  trials:"]
            lines += [f"  - {_flow(trial)}" for trial in trials]
        return "\n".join(lines) + "\n"


def _flow(value: Any) -> str:
    """A value on one line of YAML."""
    text: str = yaml.safe_dump(value, default_flow_style=True, width=10**9, sort_keys=False)
    return text.removesuffix("\n").removesuffix("\n...")


@dataclass(frozen=True)
class Tuned:
    """How a request came to its settings."""

    choices: Choices | None = None
    source: str = ""  # path of the file of choices
    chosen: int = 0  # cells that have a choice

    @property
    def hash(self) -> str:
        """Names the choices; empty where nothing was tuned."""
        return self.choices.hash if self.choices else ""


# --- files ---------------------------------------------------------------------------------------


def own_file(request: "Request") -> Path:
    """Where the choices for exactly this grid lie among the results."""
    assert request.tuning is not None
    name = request.study.name if request.study else "compare"
    grid = request.tuning.grid(request.cells)[:8]
    runs = Path(request.settings.results_dir) / "runs"
    return runs / "tuned" / f"{name}-{request.settings.scale.name}-{grid}.yaml"


def stated_files(request: "Request", config_dirs: Sequence[str]) -> list[Path]:
    """Where the choices for a study as its YAML states it may lie: `tuned` beside its folder."""
    assert request.study is not None
    name = f"{request.study.name}-{request.settings.scale.name}.yaml"
    return [folder / "tuned" / name for folder in (*map(Path, config_dirs), CONFIGS)]


def file_to_write(request: "Request", config_dirs: Sequence[str]) -> Path:
    """Where the choices for a request go.

    For a study as its YAML states it: to a folder of the user's own if one is given, else to the
    checkout. For other grids, and where configs are not to be written: among the results.
    """
    stated = stated_files(request, config_dirs)[0]
    ours = stated.parent.parent == CONFIGS
    if not request.stated or (
        ours and (HERE in CONFIGS.parents or not os.access(CONFIGS, os.W_OK))
    ):
        return own_file(request)
    return stated


def read(path: Path, remake: str) -> Choices:
    """A file of choices.

    Args:
        remake: the command that makes it again.

    Raises:
        UserError: it is damaged, edited, or of another RESULTS_VERSION.
    """
    advice = f"make it again with `{remake}`, or go without: tune=published"
    try:
        tree = yaml.safe_load(path.read_text())
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not valid YAML: {error}; {advice}") from None
    version = tree.get("results_version") if isinstance(tree, dict) else None
    if isinstance(version, int) and version != RESULTS_VERSION:
        raise UserError(
            f"{path}: its pilots are of results version {version}, this is {RESULTS_VERSION}; "
            + advice
        )
    try:
        found = validated(Choices, tree if isinstance(tree, dict) else {}, "")
        for choice in found.choices:
            for key in choice.set:
                check_key(key)
            if choice.set not in [trial.set for trial in choice.trials]:
                raise UserError(f"the choice at {_where(choice)} is none of the values tried")
    except UserError as error:
        raise UserError(f"{path}: {error}; {advice}") from None
    return found


def _where(choice: Choice) -> str:
    return " ".join(f"{key}={value}" for key, value in choice.where.items()) or "the only point"


# --- application ---------------------------------------------------------------------------------


def apply(request: "Request", composer: "Composer") -> "Request":
    """The request with the choices of the file for its study and scale, if there is one.

    Of two files the one that knows more of the cells counts; at a tie the committed one.

    Raises:
        UserError: a file of another grid, or a damaged one; pilots among the request's seeds.
    """
    mode, tuning = request.settings.tune, request.tuning
    if tuning is None and mode == "auto":
        what = f"the study {request.study.name} states" if request.study else "this states"
        raise UserError(
            f"tune=auto: {what} nothing to tune; 'bnstudy compare' takes "
            "tune=optimizer.lr=0.05,0.1,0.2, a study a block `tune:` in its YAML"
        )
    if tuning is None or mode == "published":
        return request
    if set(tuning.tune.axes) <= set(request.by_hand):
        if mode == "auto":
            raise UserError(f"tune=auto: {', '.join(tuning.tune.axes)} is set by hand")
        return request
    if mode == "auto":
        check_seeds(tuning.tune, list(request.seeds))
    if request.study is None:
        return request  # its pilots are asked for by the command itself
    own = own_file(request)
    found = [_applied_file(request, own, request)] if own.is_file() else []
    stated = [f for f in stated_files(request, composer.config_dirs) if f.is_file()]
    if mode == "committed" and stated:
        as_stated = request
        if not request.stated:
            plain = [f"scale={request.settings.scale.name}", "tune=published"]
            as_stated = composer.request(plain, request.study)
        found = [_applied_file(request, stated[0], as_stated), *found]
    best = max(found, key=lambda r: r.tuned.chosen, default=request)
    if best.tuned.chosen:
        check_seeds(tuning.tune, list(request.seeds))
    return best


def _applied_file(request: "Request", path: Path, made_for: "Request") -> "Request":
    """The request with the choices of a file, which must be of the grid of `made_for`."""
    assert request.study is not None
    assert made_for.tuning is not None
    scale = request.settings.scale.name
    words = "" if made_for.stated else " with the same overrides"
    remake = f"bnstudy tune {request.study.name} scale={scale}"
    choices = read(path, remake + words)
    grid = made_for.tuning.grid(made_for.cells)
    is_for = (choices.study, choices.scale, choices.grid)
    if is_for != (request.study.name, scale, grid):
        raise UserError(
            f"{path} was made for another grid (study {choices.study}, scale {choices.scale}, grid "
            f"{choices.grid}) than the study {request.study.name} states now at scale {scale} "
            f"(grid {grid}): regenerate it with `{remake}`{words}, or leave it out: tune=published"
        )
    try:
        return applied(request, choices, str(path))
    except UserError as error:
        raise UserError(f"{path}: {error}; regenerate it with `{remake}`{words}") from None


def applied(request: "Request", choices: Choices, source: str) -> "Request":
    """The request with choices; what the command line gives by hand stays as it is."""
    assert request.tuning is not None
    table = {choice.point: choice.set for choice in choices.choices}
    cells, chosen = [], 0
    for cell in request.cells:
        values = table.get(request.tuning.point(cell), {})
        chosen += bool(values)
        own = {key: value for key, value in values.items() if key not in request.by_hand}
        cells.append(variant(cell, own))
    return replace(request, cells=tuple(cells), tuned=Tuned(choices, source, chosen))


def check_outside(request: "Request", cells: Sequence[Config]) -> None:
    """Refuse choices whose pilots had other data on disk, or another source, than the cells have.

    Args:
        cells: of the request, with the hashes of what lies outside them filled in.

    Raises:
        UserError: a hash differs.
    """
    if request.tuned.choices is None:
        return
    assert request.tuning is not None
    held = {choice.point: choice.outside for choice in request.tuned.choices.choices}
    for cell in cells:
        there = held.get(request.tuning.point(cell), {})
        same = {k: v for k, v in there.items() if k.partition(".")[0] not in request.tuning.shared}
        for key in changed(cell, same):
            raise UserError(
                f"{request.tuned.source}: its pilots were trained with another {key} "
                f"({same[key]}, now {value_of(cell, key)}): `{request.tuned.choices.command}` "
                "regenerates it; tune=auto chooses again, tune=published leaves it out"
            )
