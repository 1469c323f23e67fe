"""The address of a run: a hash of its canonical form, the seed included.

Two runs with one address are the same experiment. What concerns only the machine (where data lie,
how many threads) is not in it: such fields are marked `machine` and left out of the canonical form.

A field that is added later gets a `neutral` value: while it has that value it is left out as well,
so old addresses stay what they were. Anything that changes the bits of a result without changing a
field bumps `RESULTS_VERSION`.
"""

import hashlib
import json
from typing import Any

from pydantic import BaseModel, Field

RESULTS_VERSION = 4
ADDRESS_LENGTH = 16  # hexadecimal digits: a collision among 1e6 runs has probability 3e-8


def machine(default: Any, description: str, **constraints: Any) -> Any:
    """A field that says where or how to compute, not what: never part of the address."""
    return Field(
        default, description=description, json_schema_extra={"machine": True}, **constraints
    )


def later(neutral: Any, description: str, **constraints: Any) -> Any:
    """A field that came after the first release: at its neutral value, addresses are as before."""
    return Field(
        neutral, description=description, json_schema_extra={"neutral": neutral}, **constraints
    )


def canonical(part: BaseModel) -> dict[str, Any]:
    """The plain form that is hashed: everything that can change a result, nothing else."""
    plain = {}
    for name, field in type(part).model_fields.items():
        extra: Any = field.json_schema_extra or {}
        value = getattr(part, name)
        if extra.get("machine") or ("neutral" in extra and value == extra["neutral"]):
            continue
        plain[name] = canonical(value) if isinstance(value, BaseModel) else value
    return plain


def digest(plain: Any, version: int | None = None) -> str:
    """Address of a canonical form under the present RESULTS_VERSION, or under another."""
    text = json.dumps(
        [RESULTS_VERSION if version is None else version, plain],
        sort_keys=True,
        separators=(",", ":"),
    )
    return hashlib.sha256(text.encode()).hexdigest()[:ADDRESS_LENGTH]


def flatten(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested dicts to one dict with dotted names."""
    flat = {}
    for key, value in tree.items():
        if isinstance(value, dict):
            flat.update(flatten(value, f"{prefix}{key}."))
        else:
            flat[prefix + key] = value
    return flat
