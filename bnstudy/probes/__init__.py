"""Further measurements of a stack, asked for by name: `evaluate.probes=[corruptions,lag]`.

A probe is a function `look -> {name: (S,) tensor}`: from a stack in whatever mode it needs, one
number per network for each name; it leaves the stack as it was. `look` is the engine's view of
networks, data and config (`engine.evaluate.Look`): `look.score(part, multiple, change)`,
`look.logits(...)`, `look.batch_statistics(size)`, `look.precise_statistics(...)`. Names become
columns of the table; those of errors contain "error": a diverged run counts as chance there.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from bnstudy.entry import locate
from bnstudy.errors import unknown


@dataclass(frozen=True)
class Probe:
    """A measurement: after every evaluation, or only when training is over."""

    entry: str
    always: bool = False

    @property
    def measure(self) -> Callable[[Any], dict[str, Any]]:
        """The function behind the entry."""
        return locate(self.entry, "evaluate.probes")


PROBES: dict[str, Probe] = {}


def find(names: Iterable[str]) -> list[Probe]:
    """The probes of these names. Raises UserError for one that does not exist."""
    for name in names:
        if name not in PROBES:
            raise unknown("probe", name, PROBES)
    return [PROBES[name] for name in names]
