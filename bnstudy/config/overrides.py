"""Overrides: read in Hydra's grammar, checked against the schema; mistakes in one message."""

import itertools
import json
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Glob, Override, Quote, QuotedString
from hydra.errors import HydraException, OverrideParseException
from pydantic import BaseModel, ValidationError

from bnstudy.config.part import Part
from bnstudy.config.settings import (
    GROUPS,
    PATHS,
    Grid,
    Power,
    Settings,
    StudyConfig,
    Tune,
    axis_keys,
    path_of,
    schema_keys,
)
from bnstudy.config.training import DURATIONS
from bnstudy.errors import UserError, did_you_mean, nearest, unknown

# naming one of these clears the others' defaults; naming two is refused
EXCLUSIVE = (
    tuple(f"train.{unit}" for unit in DURATIONS),
    ("norm.num_groups", "norm.channels_per_group"),
)
AXES = axis_keys()
MOST_CELLS = 100_000  # of a grid; expanding so many takes 10 s
Typed = TypeVar("Typed", bound=BaseModel)


def parse(overrides: Sequence[str]) -> list[Override]:
    """Overrides in Hydra's grammar; a key given twice is refused.

    Of a key that names a place, all after the first `=` is the path: `~` is the home folder, no
    other character means anything.
    """
    for text in overrides:
        if text.startswith("=") or ("=" not in text and not text.startswith("~")):
            raise UserError(f"'{text}' is not an override: write key=value")
    try:
        parsed = OverridesParser.create().parse_overrides([_with_path(o) for o in overrides])
    except OverrideParseException as error:
        raise UserError(_unreadable(error)) from None
    keys = [o.key_or_group for o in parsed]
    for key in keys:
        if keys.count(key) > 1:
            raise UserError(f"'{key}' is given {keys.count(key)} times: say it once")
    return parsed


def _with_path(text: str) -> str:
    """An override whose value is a path, with the path quoted for Hydra; any other as it is."""
    key, _, value = text.partition("=")
    if key.lstrip("+") not in PATHS or value == "null":
        return text
    return f"{key}={quoted(path_of(text))}"


def quoted(text: object) -> str:
    """A text in Hydra's override grammar, whatever is in it."""
    return QuotedString(text=str(text), quote=Quote.single).with_quotes()


def _unreadable(error: OverrideParseException) -> str:
    """Why Hydra cannot read an override, and what can be done."""
    override = str(error.override)
    said = [line for line in str(error).splitlines() if line and not line.startswith("See http")]
    why = next((line for line in said if not line.startswith("Error parsing")), said[0])
    key = override.partition("=")[0]
    return f"{override}: {why}. A value with special characters is quoted twice: \"{key}='...'\""


def checked(override: Override, choices: Callable[[str], list[str]]) -> Override:
    """An override whose key exists, and can be an axis if it has several values.

    Args:
        choices: the names that a group offers.
    """
    key = override.key_or_group
    if key.startswith(("hydra/sweeper", "hydra.sweeper")):
        raise UserError(
            f"{override.input_line}: Hydra's sweepers are not used: every grid is trained whole. "
            "Write its axes as comma lists (bnstudy train -m optimizer.lr=0.05,0.1,0.2), compare "
            "arms with bnstudy compare, or write a study (a grid in a file)"
        )
    if key == "hydra/launcher" and not override.is_sweep_override():
        _check_launcher(str(override.value()), choices(key))
    if not (key == "hydra" or key.startswith(("hydra.", "hydra/"))):
        if override.is_delete():
            raise UserError(f"~{key}: nothing can be deleted from a run; set it to null instead")
        check_key(key)
    if override.is_sweep_override():
        if key == "seeds":
            listed = ",".join(map(str, sweep_values(override, choices)))
            raise UserError(
                f"{override.input_line}: seeds are not an axis of a grid, every cell has all of "
                f"them: write seeds=[{listed}] for these, or seeds=N for 0 to N - 1"
            )
        if key == "looks":
            listed = ",".join(map(str, sweep_values(override, choices)))
            raise UserError(f"{override.input_line}: looks are a list: write looks=[{listed}]")
        if key not in GROUPS and key not in AXES:
            raise UserError(
                f"{override.input_line}: {key} says how to compute, not what, so it cannot "
                "be an axis of a grid: give one value"
            )
    elif key in GROUPS and str(override.value()) not in (allowed := choices(key)):
        raise unknown(key, str(override.value()), allowed)
    return override


SUBMITIT = ("submitit_local", "submitit_slurm")  # launchers of the extra `slurm`


def _check_launcher(name: str, installed: list[str]) -> None:
    if name not in installed and name in SUBMITIT:
        raise UserError(
            f"hydra/launcher={name} is an extra that is not installed: `uv sync --extra slurm` in "
            "a checkout, `pip install hydra-submitit-launcher` elsewhere. Installed: "
            + ", ".join(installed)
        )
    if name not in installed:
        raise unknown("hydra/launcher", name, sorted({*installed, *SUBMITIT}))


def sweep_values(override: Override, choices: Callable[[str], list[str]]) -> list[Any]:
    """The values of a grid axis: a comma list, choice(...), range(...), or glob(...) of a group.

    A glob finds `custom` only where it is asked for by name: alone it lacks its entry.

    Raises:
        UserError: anything without a first and a last value, or in random order.
    """
    key, value = override.key_or_group, override.value()
    if isinstance(value, Glob):
        names = value.filter(choices(key)) if key in GROUPS else []
        names = [n for n in names if n != "custom" or "custom" in value.include]
        if not names:
            raise UserError(f"{override.input_line} matches nothing: write a comma list")
        return names
    if getattr(value, "shuffle", False):
        raise UserError(f"{override.input_line}: a grid has one order: leave shuffle out")
    try:
        found = list(itertools.islice(override.sweep_iterator(), MOST_CELLS + 1))
        if len(found) > MOST_CELLS:
            raise UserError(f"{override.input_line}: a grid has {MOST_CELLS:,} cells at most")
        return found
    except HydraException:  # an interval, which a sampler would draw from
        raise UserError(
            f"{override.input_line}: a grid needs single values: write a comma list "
            f"({key}=A,B,C), range(start, stop, step), or glob(*) for a group's choices"
        ) from None


def deciding(key: str) -> bool:
    """Whether a key of the command line says what a cell is, not how much or how to compute."""
    return key != "scale" and (key in GROUPS or key in AXES)


def check_key(key: str) -> None:
    """Refuse a key that the schema lacks."""
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
    optimizer.lr), a word of it (learn_eps for norm.eps), or what is most like it.
    """
    folder, last = key.partition(".")[0], key.rpartition(".")[2]
    listed = [leaf for leaf in leaves if leaf.startswith(f"{folder}.")] if folder != last else []
    listed = listed or [*GROUPS, *leaves]
    tails = {leaf.rpartition(".")[2]: leaf for leaf in reversed(listed)}
    words = [w for w in reversed(last.split("_")) if w in tails]
    near = last if last in tails else next(iter(words), None) or nearest(last, tails, cutoff=0.4)
    found = dotted if (dotted := last.replace("_", ".", 1)) in leaves else near and tails[near]
    hint = f" Did you mean '{found}'?" if found else ""
    if any(leaf in GROUPS for leaf in listed):  # of all folders: too many to name each key
        folders = (f"{leaf.partition('.')[0]}.*" if "." in leaf else leaf for leaf in listed)
        listed = list(dict.fromkeys(folders))
    return UserError(f"unknown key '{key}'.{hint} Allowed: {', '.join(listed)}.")


def rivals_of(words: Iterable[Override]) -> list[str]:
    """The keys whose defaults give way to one that was given a value; null is none."""
    named = {w.key_or_group for w in words if w.is_sweep_override() or w.value() is not None}
    cleared = []
    for rivals in EXCLUSIVE:
        if len(both := [k for k in rivals if k in named]) > 1:
            raise UserError(f"{' and '.join(both)} were both given: exactly one is allowed")
        cleared += [k for k in rivals if both and k not in both]
    return cleared


def literal(value: Any) -> str:
    """A YAML value in Hydra's override grammar."""
    return value if isinstance(value, str) else json.dumps(value).replace('"', "'")


def validated(model: type[Typed], tree: dict[str, Any], where: str) -> Typed:
    """The tree as a typed object; a mistake becomes one message that names the key."""
    try:
        return model.model_validate(tree)
    except ValidationError as error:
        found = error.errors(include_url=False)
        lines = [_teach(e, model) for e in found if e["type"] != "missing"]
        missing = [_key(e) for e in found if e["type"] == "missing"]
        lines += [f"it lacks {', '.join(missing)}"] if missing else []
        head = f"{where}: " if where else ""
        raise UserError(head + "; ".join(dict.fromkeys(lines))) from None


def _key(error: Any) -> str:
    """The dotted name that an error of pydantic's is about."""
    return ".".join(str(part) for part in error["loc"] if part not in ("int", "list[int]"))


def _teach(error: Any, model: type[BaseModel]) -> str:
    key = _key(error)
    if error["type"] == "value_error":
        return error["msg"].removeprefix("Value error, ")
    if error["type"] == "extra_forbidden":
        leaves = schema_keys() if model is Settings else [*model.model_fields]
        folder = key.rpartition(".")[0]
        if model is StudyConfig and folder:
            parts: dict[str, type[Part]] = {"tune": Tune, "power": Power}
            part = parts.get(folder.rpartition(".")[2], Grid)
            leaves = [f"{folder}.{name}" for name in part.model_fields]
        return str(unknown_key(key, leaves)).removesuffix(".")
    hint = ""
    if error["type"] == "literal_error":
        names = [n.strip("' ") for n in error["ctx"]["expected"].replace(" or ", ",").split(",")]
        hint = did_you_mean(error["input"], names, cutoff=0.4)
    must = error["msg"].replace("Input should be", "it must be", 1)
    return f"{key}={error['input']} is not allowed: {must}.{hint}"
