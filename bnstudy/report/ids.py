"""Permanent addresses on the page: a study's is its name, a claim's follows from its name."""

import re
from collections.abc import Iterable

from bnstudy.errors import UserError


def slug(name: str) -> str:
    """A claim's name in lower case, its words joined by hyphens: `BN: at 2` is `bn-at-2`."""
    return "-".join(re.findall(r"[^\W_]+", name.lower()))


def claim_id(study: str, name: str) -> str:
    """The address of a claim: `batch_size.contrast-digits-resnet-growth`."""
    return f"{study}.{slug(name)}"


def claim_ids(study: str, names: Iterable[str]) -> dict[str, str]:
    """Name -> address of the claims of one study.

    Raises UserError, which gives both names, where two claims have the same address.
    """
    taken: dict[str, str] = {}
    for name in names:
        address = claim_id(study, name)
        if address in taken:
            raise UserError(
                f"study {study}: the claims '{taken[address]}' and '{name}' have the same address "
                f"'#{address}': names must differ in a letter or a digit"
            )
        taken[address] = name
    return {name: address for address, name in taken.items()}
