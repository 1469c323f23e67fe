"""Overrides: read in Hydra's grammar, checked against the schema; mistakes in one message."""

import json
from collections.abc import Callable, Collection, Sequence
from typing import Any, TypeVar

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import OverrideParseException
from pydantic import BaseModel, ValidationError

from bnstudy.config.schema import DURATIONS
from bnstudy.config.settings import GROUPS, Settings, axis_keys, schema_keys
from bnstudy.errors import UserError, did_you_mean, nearest, unknown

# naming one of these clears the others' defaults; naming two is refused
EXCLUSIVE = (
    tuple(f"train.{unit}" for unit in DURATIONS),
    ("norm.num_groups", "norm.channels_per_group"),
)
AXES = axis_keys()
Typed = TypeVar("Typed", bound=BaseModel)


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


def checked(override: Override, choices: Callable[[str], list[str]]) -> Override:
    """An override whose key exists, and can be an axis if it has several values.

    Args:
        choices: the names that a group offers.
    """
    key = override.key_or_group
    if not (key == "hydra" or key.startswith(("hydra.", "hydra/"))):
        if override.is_delete():
            raise UserError(f"~{key}: nothing can be deleted from a run; set it to null instead")
        check_key(key)
    if override.is_sweep_override():
        if key == "seeds":
            raise UserError("seeds=3,7 is a grid axis: write seeds=[3,7] for these two")
        if key not in GROUPS and key not in AXES:
            raise UserError(
                f"{override.input_line}: {key} says how to compute, not what, so it cannot "
                "be an axis of a grid: give one value"
            )
    elif key in GROUPS and str(override.value()) not in (allowed := choices(key)):
        raise unknown(key, str(override.value()), allowed)
    return override


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
    optimizer.lr).
    """
    folder, last = key.partition(".")[0], key.rpartition(".")[2]
    listed = [leaf for leaf in leaves if leaf.startswith(f"{folder}.")] if folder != last else []
    listed = listed or [*GROUPS, *leaves]
    tails = {leaf.rpartition(".")[2]: leaf for leaf in reversed(listed)}
    near = nearest(last, tails, cutoff=0.4)
    hint = f" Did you mean '{tails[near]}'?" if near else ""
    return UserError(f"unknown key '{key}'.{hint} Allowed: {', '.join(listed)}.")


def rivals_of(named: Collection[str]) -> list[str]:
    """The keys whose defaults give way to one that was named."""
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
        hint = did_you_mean(error["input"], names, cutoff=0.4)
    must = error["msg"].replace("Input should be", "it must be", 1)
    return f"{key}={error['input']} is not allowed: {must}.{hint}"
