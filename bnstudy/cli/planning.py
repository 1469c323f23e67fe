"""What of a request is still to be trained, refused where it cannot be."""

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bnstudy.cli.apart import Apart
from bnstudy.config import Config
from bnstudy.config.tuned import check_outside
from bnstudy.store import Store
from bnstudy.sweep.launch import Fate
from bnstudy.sweep.plan import Plan, addresses, make_plan
from bnstudy.sweep.protocol import State
from bnstudy.work.sources import resolve

if TYPE_CHECKING:
    from bnstudy.config.compose import Request


def runs_of(request: "Request") -> Path:
    """The folder of records, and of what is made from them."""
    return Path(request.settings.results_dir) / "runs"


def store_of(request: "Request") -> Store:
    """The store that a request trains into."""
    return Store(runs_of(request))


@contextmanager
def place_of(request: "Request") -> Iterator[Path]:
    """Where planning keeps hashes and decoded images: a refused command must not leave any."""
    with tempfile.TemporaryDirectory() as scratch:
        runs = runs_of(request)
        yield runs if runs.is_dir() else Path(scratch)


def planned(
    request: "Request",
    place: Path,
    judges: Apart | None = None,
    seeds: Sequence[int] | None = None,
) -> Plan:
    """What is missing; `place` keeps what planning finds out about data on disk.

    `judges` begin as soon as something is, beside the rest of planning.

    Every cell of which something is missing is checked: no cell may fail for a reason that was
    known before.
    """
    cells = resolve(request.cells, place / "cache")
    check_outside(request, cells)
    held = store_of(request).held([cell.cell for cell in cells])
    bill = _Bill(place / "cache")
    seeds = request.seeds if seeds is None else seeds
    missing = [c for c in cells if not held.issuperset(addresses(c, seeds))]
    if missing and judges is not None:
        judges.start()
    for cell in missing:
        bill.check(cell)
    return make_plan(cells, seeds, held, bill.seconds, request.settings.max_stack)


def without_failed(request: "Request", plan: Plan) -> tuple[Plan, list[Fate]]:
    """A plan without the stacks that failed before, and these; with retry=failed the whole plan."""
    from bnstudy.work.failures import Failures

    if request.settings.retry == "failed":
        return plan, []
    failed = Failures(runs_of(request)).of(plan.stacks)
    fates = [Fate(s, State.FAILED, failed[s.name]) for s in plan.stacks if s.name in failed]
    return replace(plan, stacks=tuple(s for s in plan.stacks if s.name not in failed)), fates


class _Bill:
    """What networks cost; torch is needed only when something is missing."""

    def __init__(self, cache: Path) -> None:
        self.cache = cache
        self.anatomies: dict[str, Any] = {}
        self.data: dict[Any, Any] = {}

    def seconds(self, config: Config, networks: int) -> float:
        """Estimated seconds of a stack."""
        from bnstudy.sweep import cost
        from bnstudy.work.build import anatomy

        key = repr((config.data, config.model, config.norm, config.train.batch_size))
        if key not in self.anatomies:
            self.anatomies[key] = anatomy(config, self._load(config))
        return cost.seconds(config, self.anatomies[key], networks)

    def check(self, cell: Config) -> None:
        """Refuse what cannot train."""
        from bnstudy.work.build import check

        check(cell, self._load(cell))

    def _load(self, cell: Config) -> Any:
        """A cell's data; the last are kept, since neighbours in a grid mostly share theirs."""
        from bnstudy import data

        drawn = (cell.data, cell.seed)
        if drawn not in self.data:
            self.data = {drawn: data.load_many([drawn], self.cache)}
        return self.data[drawn]
