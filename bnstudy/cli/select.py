"""Which records a command is about: by address, by filters, or as the runs of a study.

One grammar for ls, show, export and rm:

    [ADDRESS] [name=value ...]      records, filtered by columns: norm=group train.batch_size=2,4
    STUDY [override ...]            the runs of a study's grid: batch_size scale=smoke norm=batch
"""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bnstudy.cli.places import open_store
from bnstudy.config import Config, StudyConfig
from bnstudy.errors import UserError
from bnstudy.store import Store
from bnstudy.store.table import select as matching
from bnstudy.sweep.plan import addresses

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class StudyRuns:
    """The grid of a study as a command line has it."""

    study: StudyConfig
    scale: str
    axes: tuple[tuple[str, tuple[Any, ...]], ...]
    cells: tuple[Config, ...]
    seeds: tuple[int, ...]

    @property
    def addresses(self) -> list[str]:
        """Of all runs of the grid, in the store or not."""
        return [a for cell in self.cells for a in addresses(cell, self.seeds)]


@dataclass(frozen=True)
class Selection:
    """Records that words name, and how they name them."""

    store: Store
    table: "pd.DataFrame"
    prefix: str = ""  # the beginning of an address
    study: StudyRuns | None = None

    @property
    def cells(self) -> list[str]:
        """Addresses of the cells that the runs belong to."""
        return list(dict.fromkeys(self.table["cell"]))


def select(words: Sequence[str], config_dir: Sequence[str] = ()) -> Selection:
    """The records that words name; without a word, all of them.

    Raises:
        UserError: two names, an unknown address, column or override; filters that leave nothing.
    """
    from bnstudy.config.compose import hydra_session
    from bnstudy.config.overrides import parse, sweep_values

    names = [w for w in words if "=" not in w]
    place = [w for w in words if w.startswith("results_dir=")]
    rest = [w for w in words if "=" in w and w not in place]
    if len(names) > 1:
        raise UserError(f"{' and '.join(names)}: name one address or one study")
    store = open_store(place)
    if not names and not rest:
        return Selection(store, store.table())
    with hydra_session(config_dir) as composer:
        if names and names[0] in composer.choices("study"):
            request = composer.request([*rest, *place], study=composer.study(names[0]))
            cells, seeds = _resolved(request.cells, store), request.seeds
            scale = request.settings.scale.name
            runs = StudyRuns(composer.study(names[0]), scale, request.axes, cells, seeds)
            table = store.table(runs.addresses, [cell.cell for cell in cells])
            return Selection(store, table, study=runs)
    table = store.table()
    if names:
        begins = table["cell"].str.startswith(names[0]) | table["address"].str.startswith(names[0])
        table = table[begins] if len(table) else table
        if table.empty:
            store.runs(names[0])  # says that there is none, and what is near
    filters = {
        word.key_or_group: (
            sweep_values(word, lambda key: sorted(table[f"{key}.name"].unique()))
            if word.is_sweep_override()
            else [word.value()]
        )
        for word in parse(rest)
    }
    return Selection(store, matching(table, filters), prefix="".join(names))


def _resolved(cells: Sequence[Config], store: Store) -> tuple[Config, ...]:
    """Cells with the hashes of what lies outside them; nothing is written where nothing is yet."""
    from bnstudy.work.sources import resolve

    with tempfile.TemporaryDirectory() as scratch:
        place = store.root if store.root.is_dir() else Path(scratch)
        return tuple(resolve(cells, place / "cache"))
