"""Bring the store up to what was asked for, and say so: plan, train, tell, draw, judge."""

import shlex
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import click

from bnstudy.cli.places import writable
from bnstudy.config import Config
from bnstudy.config.compose import Composer, Request
from bnstudy.errors import count
from bnstudy.store import Store
from bnstudy.sweep import launch as sweep
from bnstudy.sweep.launch import Outcome, Plan

LONG_PLAN = 30  # minutes: a longer plan says how to shrink it


def train_missing(request: Request, composer: Composer, dry_run: bool) -> Plan | None:
    """Plan, show the plan, train what is missing; the plan when the store holds it all or part."""
    with tempfile.TemporaryDirectory() as scratch:
        # planning keeps hashes and decoded images; a refused command must not leave any
        runs = runs_of(request)
        place = runs if runs.is_dir() else Path(scratch)
        plan = planned(request, place)
        if not plan.stacks:
            click.echo(
                f"nothing is missing: the store holds all {count(plan.runs, 'run')} of "
                f"{count(len(plan.cells), 'cell')}"
            )
            return plan
        if request.study:
            from bnstudy import studies

            studies.check(request.study, plan.cells, plan.seeds)
        show_plan(request, plan)
        if dry_run:
            return None
        from bnstudy.work import trainer as run

        where = run.device(request.settings.device)
        for cell in plan.cells:
            run.precision(cell, where)
        writable(Path(request.settings.results_dir))
        if place != runs and (place / "cache").is_dir():
            shutil.copytree(place / "cache", runs / "cache", dirs_exist_ok=True)
    return launched(request, composer, plan)


def planned(request: Request, place: Path) -> Plan:
    """What is missing; `place` keeps what planning finds out about data on disk."""
    cells = tuple(sweep.resolve(cell, place / "cache") for cell in request.cells)
    anatomies: dict[str, Any] = {}

    def estimate(config: Config, seeds: int) -> float:
        from bnstudy.sweep import cost
        from bnstudy.work import trainer as run  # torch: only when there is something to train

        parts = (config.data, config.model, config.norm, config.train.batch_size)
        if (key := repr(parts)) not in anatomies:
            anatomies[key] = run.preflight(config, run.dataset_of(config, place))
        return cost.seconds(config, anatomies[key], seeds)

    return sweep.make_plan(request, cells, store_of(request), estimate)


def launched(request: Request, composer: Composer, plan: Plan) -> Plan:
    """Train what is missing and tell how it ended."""
    from bnstudy.sweep.progress import progress

    store = store_of(request)
    begin = time.monotonic()
    outcome = sweep.launch(plan, request, composer, store, command_line(), progress)
    tell(outcome, plan, time.monotonic() - begin)
    if outcome.missing and not outcome.out_of_time:
        click.get_current_context().call_on_close(lambda: sys.exit(1))  # after what can be shown
    return plan


def show_plan(request: Request, plan: Plan) -> None:
    """Cells, models, time and disk of what is missing, and how to make it smaller."""
    from bnstudy.sweep.cost import BYTES

    workers = sweep.workers_for(request)
    minutes = plan.minutes(workers)
    excluded = f", {request.excluded} impossible combinations left out" if request.excluded else ""
    axes = "; ".join(f"{k}: {', '.join(map(str, v))}" for k, v in request.axes)
    click.echo(
        f"plan     {count(len(plan.cells), 'cell')} x {count(len(plan.seeds), 'seed')} = "
        f"{count(plan.runs, 'model')}{excluded}"
    )
    if axes:
        click.echo(f"axes     {axes}")
    click.echo(
        f"missing  {count(plan.missing, 'model')} in {count(len(plan.stacks), 'stack')}"
        + (f" ({plan.held} are in the store)" if plan.held else "")
    )
    click.echo(
        f"time     about {minutes:.1f} minutes with {count(workers, 'worker')}; "
        f"disk about {plan.missing * BYTES / 1e6:.0f} MB"
    )
    limit = request.settings.max_minutes
    if minutes > (limit or LONG_PLAN):
        click.echo(
            "         smaller: scale=smoke or quick, fewer seeds (seeds=5), a shorter axis "
            "(train.batch_size=2,32), less data (data.train_size=600), or stop in time with "
            "max_minutes=30 and go on later"
        )


def tell(outcome: Outcome, plan: Plan, seconds: float) -> None:
    """How the launch ended; exit code 130 after Ctrl-C."""
    trained = plan.missing - sum(len(s.configs) for s in outcome.missing)
    rate = f"; W&B {outcome.tracker}" if outcome.tracker else ""
    click.echo(f"trained  {count(trained, 'model')} in {seconds / 60:.1f} minutes{rate}")
    for failure in outcome.failures:
        click.echo(f"failed   {failure['label']}:\n{failure['error']}", err=True)
    left = len(outcome.missing)
    if not left:
        return
    again = f"the same command goes on where this ended: {command_line()}"
    if outcome.stopped:
        click.echo(f"stopped  {count(left, 'stack')} left; {again}", err=True)
        sys.exit(130)
    why = "max_minutes is over" if outcome.out_of_time else "they failed or their workers died"
    click.echo(f"left     {count(left, 'stack')} ({why}); {again}", err=True)


def finish_study(request: Request, plan: Plan) -> None:
    """Print the verdicts of a study and where its figure, table and claims are."""
    from bnstudy import studies

    described = request.study
    assert described is not None
    scale = request.settings.scale.name
    folder = runs_of(request) / "studies" / described.name / f"{scale}-{plan.grid_hash}"
    verdicts = studies.results_of(
        described,
        store_of(request).table(plan.addresses),
        folder,
        scale=scale,
        cells=plan.cells,
        planned=plan.runs,
        command=command_line(),
    )
    names = ("figure.png", "table.csv", "claims.json")
    for line in [*studies.lines(verdicts), *(str(folder / name) for name in names)]:
        click.echo(line)


def runs_of(request: Request) -> Path:
    """The folder of records, and of what is made from them."""
    return Path(request.settings.results_dir) / "runs"


def store_of(request: Request) -> Store:
    """The store that a request trains into."""
    return Store(runs_of(request))


def command_line() -> str:
    """The command as typed, for records; where data lie is named by BNSTUDY_DATA, not by path."""
    shown = ["data.root=$BNSTUDY_DATA" if a.startswith("data.root=") else shlex.quote(a)
             for a in sys.argv[1:]]  # fmt: skip
    return " ".join(["bnstudy", *shown])
