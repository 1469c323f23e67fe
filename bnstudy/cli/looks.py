"""Look by look: train the seeds of a look, judge them, and go on only while nothing is decided."""

import time
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from bnstudy.cli import execute, present
from bnstudy.cli.apart import Apart
from bnstudy.cli.execute import Result
from bnstudy.numbers import estimate

if TYPE_CHECKING:
    from bnstudy.config.compose import Composer, Request
    from bnstudy.studies.looks import Look
    from bnstudy.sweep.plan import Plan


def train(
    request: "Request",
    composer: "Composer",
    dry_run: bool,
    judges: Apart,
    alone: bool,
    looked: "Callable[[Plan], list[Look]]",
    told: "Callable[[Look], str]",
    detach: bool = False,
) -> Result | None:
    """As `execute.train_missing`, look by look; the plan of the result is that of all looks.

    With `detach` the first look of which something is missing is submitted.

    Args:
        looked: the looks that can be taken at what the store holds of a plan.
        told: what a look found, in words.
    """
    if dry_run:
        result = execute.train_missing(request, composer, dry_run, judges, alone)
        present.looks(request.looks)
        return result
    begin, first, result = time.monotonic(), 0, None
    for last in request.looks:
        block = request.seeds[first:last]
        left = _with_time_left(request, time.monotonic() - begin)
        result = execute.train_missing(left, composer, dry_run, judges, alone, block, detach)
        if result is None:  # submitted
            return None
        result = replace(result, plan=replace(result.plan, seeds=request.seeds))
        if not result.outcome.complete:
            break
        line, decided = Apart(_last, looked, told, result.plan).result()
        present.line(line)
        if decided:
            break
        first = last
    return result


def _last(
    looked: "Callable[[Plan], list[Look]]", told: "Callable[[Look], str]", plan: "Plan"
) -> tuple[str, bool]:
    """The line about the look that was taken last, and whether it decided."""
    look = looked(plan)[-1]
    head = f"look {look.number} of {look.of} ({len(look.seeds)} seeds)"
    return f"{head}: {told(look)}", look.decided


def _with_time_left(request: "Request", spent: float) -> "Request":
    """The request with what is left of its max_minutes: they are those of the whole command."""
    minutes = request.settings.max_minutes
    if minutes is None:
        return request
    left = {"max_minutes": max(minutes - spent / 60, 1e-6)}
    return replace(request, settings=request.settings.model_copy(update=left))


def study(
    request: "Request",
    composer: "Composer",
    dry_run: bool,
    judges: Apart,
    alone: bool = True,
    detach: bool = False,
) -> Result | None:
    """Train a study until its primary claim is decided or its last look is reached."""

    def looked(plan: "Plan") -> "list[Look]":
        from bnstudy.studies.results import Protocol, judged

        assert request.study is not None
        table = execute.table_of(request, plan)
        protocol = Protocol(seeds=request.seeds, looks=request.looks)
        return judged(request.study, table, len(plan.cells), protocol)

    def told(look: "Look") -> str:
        primary = next((v for v in look.found if v.primary), None)
        if primary is None:
            return "no claim needs more seeds"
        return (
            f"{primary.verdict}, level {look.level:.3g}: "
            f"{estimate(primary.mean, primary.low, primary.high, primary.unit)}"
        )

    return train(request, composer, dry_run, judges, alone, looked, told, detach)


def compare(
    request: "Request", composer: "Composer", dry_run: bool, judges: Apart, metric: str
) -> Result | None:
    """Train arms until each differs from the first one, or the last look is reached."""
    from bnstudy.cli import compare as arms

    def looked(plan: "Plan") -> "list[Look]":
        return arms.looked(request, plan, metric)

    return train(request, composer, dry_run, judges, True, looked, arms.told)
