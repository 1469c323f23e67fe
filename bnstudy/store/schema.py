"""What a record holds, and the text it is stored as."""

import math
from typing import Any, TypedDict

from pydantic import BaseModel, ConfigDict, ValidationError, create_model

from bnstudy.atomic import json_text
from bnstudy.config import digest


class Provenance(TypedDict, total=False):
    """How a run was made. What else a worker notes stays in the record, out of the table."""

    study: str  # empty outside studies
    wall_seconds: float  # this run's share of its stack's
    stack_seconds: float  # of all networks trained together
    created: str  # UTC, ISO 8601
    host: str
    device: str  # cpu or cuda
    device_name: str
    threads: int
    torch: str
    python: str
    bnstudy: str
    resumed: int  # how often its stack went on from a checkpoint; absent where it never did
    tracker: str  # how mirroring the run ended
    command: str
    launcher: str  # how its worker began: in_process, forked, spawned, or the name of Hydra's
    git_commit: str  # empty where unknown
    git_dirty: bool | None


class StackNote(TypedDict, total=False):
    """How a run's network was trained together with others."""

    id: str  # the name of the stack in the store, which fills it in
    seeds: list[int]  # of this cell, in the stack
    addresses: list[str]  # of all that were planned with it, in the order in which they trained
    networks: int  # of all cells
    kind: str  # how the networks share a step
    steps: str  # compiled or eager, and why
    note: str  # what went otherwise than planned


class Record(TypedDict):
    """Everything one run produced, its history and weights aside. Plain values throughout.

    Numbers may be NaN or infinite: the texts "NaN", "Infinity" and "-Infinity" become numbers.
    """

    address: str
    cell: str
    results_version: int
    seed: int
    config: dict[str, Any]  # canonical, nested
    summary: dict[str, float | None]  # metric -> value
    layers: list[dict[str, Any]]  # a norm layer each
    provenance: Provenance
    stack: StackNote


PROVENANCE = ("stack", "results_version", *Provenance.__annotations__)
"""Table columns that say how a run was made, not what came out: two tables of the same experiment
are equal without them (`without_provenance`). `stack` is the stack's id."""

COLUMNS = ("address", "cell", "seed")
"""Table columns that name a run."""

_STRICT = ConfigDict(strict=True)


def _model(kind: type) -> type[BaseModel]:
    """A model with the fields of a typed dictionary, each optional."""
    fields: dict[str, Any] = {name: (of, None) for name, of in kind.__annotations__.items()}
    return create_model(kind.__name__, __config__=_STRICT, **fields)


_parts = {kind.__name__: _model(kind) for kind in (Provenance, StackNote)}
_fields: dict[str, Any] = {
    name: (_parts.get(getattr(kind, "__name__", ""), kind), ...)
    for name, kind in Record.__annotations__.items()
}
_FORM = create_model("Form", __config__=_STRICT, **_fields)

_NOT_FINITE = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


def encode(value: Any) -> str:
    """Records as strict JSON (`atomic.json_text`) that `decode` reads; NaN is written as a text."""
    return json_text(value, "strings", indent=1)


def decode(text: bytes) -> Any:
    """What `encode` wrote. Raises ValueError for anything but JSON."""
    from pydantic_core import from_json

    value = from_json(text)
    return _numbers(value) if b'"NaN"' in text or b'Infinity"' in text else value


def flaw(value: Any, address: str, cell: str) -> str:
    """What is wrong with a decoded record that lies in the place of this run; "" where nothing is.

    It has all the fields of a `Record` with values of their kinds, and its address is the hash of
    its config. Fields that this version does not know are no flaw: a later one may have them.
    """
    try:
        _FORM.model_validate(value)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        what = "is missing" if first["type"] == "missing" else f"is {str(first['input'])[:40]!r}"
        return f"{'.'.join(map(str, first['loc'])) or 'the record'} {what}"
    if (value["address"], value["cell"]) != (address, cell):
        return f"it is the record of {value['address']}, of cell {value['cell']}"
    if digest(value["config"], value["results_version"]) != address:
        return "its config is not that of its address"
    if value["config"].get("seed") != value["seed"]:
        return f"its seed is {value['seed']}, and its config's {value['config'].get('seed')}"
    taken = {*COLUMNS, *PROVENANCE, *value["config"]}
    doubled = [name for name in value["summary"] if name.partition(".")[0] in taken]
    return f"its metric {doubled[0]} has the name of a setting" if doubled else ""


def _numbers(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _numbers(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_numbers(v) for v in value]
    return _NOT_FINITE.get(value, value) if isinstance(value, str) else value
