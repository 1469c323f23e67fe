"""User-facing messages: plans, how launches ended, verdicts, results."""

import json
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from bnstudy.errors import UserError, count

if TYPE_CHECKING:
    import pandas as pd

    from bnstudy.cli.select import StudyRuns
    from bnstudy.config import Config
    from bnstudy.config.compose import Composer, Request
    from bnstudy.config.tuned import Choice, Choices
    from bnstudy.stats import Claim
    from bnstudy.stats.power import Rates
    from bnstudy.store import Store
    from bnstudy.sweep.begin import Begun
    from bnstudy.sweep.launch import Fate, Outcome
    from bnstudy.sweep.plan import Plan

LONG_PLAN = 30  # minutes: a longer plan says how to shrink it


def line(text: object) -> None:
    """A verdict, or where something was written."""
    click.echo(str(text))


def note(text: str) -> None:
    """Something worth knowing that happened on the way."""
    click.echo(text, err=True)


def nothing_missing(plan: "Plan") -> None:
    """All of a grid is in the store."""
    click.echo(
        f"nothing is missing: the store holds all {count(plan.runs, 'run')} of "
        f"{count(len(plan.cells), 'cell')}"
    )


def plan(plan: "Plan", request: "Request", workers: int) -> None:
    """Cells, models, time and disk of what is missing, and how to make it smaller."""
    from bnstudy.sweep.cost import BYTES

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
    tuned(request)
    for line in sorted(set(filter(None, map(stretch, plan.cells)))):
        click.echo(line)
    if minutes > (request.settings.max_minutes or LONG_PLAN):
        click.echo(
            "         smaller: scale=smoke or quick, fewer seeds (seeds=5), a shorter axis "
            "(train.batch_size=2,32), less data (data.train_size=600), or stop with "
            "max_minutes=30 and continue later"
        )


def stretch(cell: "Config") -> str | None:
    """That a final training error says more about the beginning of training than about its end."""
    found = cell.evaluate.last_stretch(cell.train) if cell.task.name == "classification" else None
    if found is None:
        return None
    last, whole, unit = found
    if last <= whole / 2 or (unit, last) == ("epochs", 1):
        return None
    key = "evaluate.steps" if unit == "steps" else "evaluate.every"
    later = max(whole - whole // 20, 1) if unit == "steps" else math.ceil(whole) - 1
    return (
        f"note     train_error will be a mean over the last {last:,g} of {whole:,g} {unit}: "
        f"{key}={later:g} measures the end alone"
    )


def looks(looks: Sequence[int]) -> None:
    """That a plan is the most that may be trained."""
    seeds = ", ".join(map(str, looks))
    click.echo(
        f"looks    after {seeds} seeds: training stops at the first that decides, this is the most"
    )


def tuned(request: "Request") -> None:
    """How a study's cells came to their tuned settings."""
    from bnstudy.config.grid import value_of
    from bnstudy.config.overrides import deciding

    if request.tuning is None:
        return
    made, keys = request.tuned, list(request.tuning.tune.axes)
    by_hand = [key for key in keys if key in request.by_hand]
    if by_hand:
        click.echo(f"tuned    not {', '.join(by_hand)}: set by hand")
    if by_hand == keys:
        return
    if request.settings.tune == "published":
        fixed = {f"{key}={value_of(cell, key)}" for key in keys for cell in request.cells}
        rules = {f"lr_rule={cell.optimizer.lr_rule}" for cell in request.cells}
        click.echo(
            f"tuned    no: published protocol, {', '.join([*sorted(fixed), *sorted(rules)])}"
        )
    elif made.chosen:
        click.echo(
            f"tuned    {made.chosen} of {count(len(request.cells), 'cell')} by {made.source}"
        )
    if request.settings.tune == "committed" and made.chosen < len(request.cells):
        own = " ".join(o for o in request.overrides if deciding(o.partition("=")[0].lstrip("+")))
        study = f" {request.study.name}" if request.study else ""
        scale = f" scale={request.settings.scale.name}"
        what = "the others: as" if made.chosen else f"no: {', '.join(keys)} as"
        click.echo(
            f"tuned    {what} in the YAML{f', not tuned for {own}' if own else ''}: "
            f"tune=auto trains pilots first, or run `bnstudy tune{study}{scale}{own and ' '}{own}`"
        )


def pilots(request: "Request") -> None:
    """What comes next is pilots."""
    seeds = ", ".join(map(str, request.seeds))
    click.echo(f"pilots   seeds {seeds}, measured on the validation part")


def after_pilots(plan: "Plan", request: "Request") -> None:
    """What is trained once pilots have chosen."""
    from bnstudy.sweep.hydra_launcher import workers_for

    click.echo(
        f"first    pilots; then {count(plan.missing, 'model')}, about "
        f"{plan.minutes(workers_for(request)):.1f} minutes"
    )


def choices(found: "Choices") -> None:
    """A line for each point: what was chosen, and the validation errors behind it."""
    from bnstudy.config import seed_list

    seeds = ", ".join(map(str, seed_list(found.tune.seeds)))
    click.echo(
        f"chosen   by validation error (%), mean of pilot seeds {seeds}; a failed run counts at "
        "chance, of equal values the first is chosen; edge: the best value is the last of its "
        "extended grid"
    )
    for choice in found.choices:
        click.echo(f"{settings(choice.where) or 'all cells'}: {_chosen(choice)}")
        for trial in choice.trials:
            bad = f", {trial.failed} of {len(trial.runs)} failed" if trial.failed else ""
            mark = "*" if trial.set == choice.set else " "
            click.echo(f"  {mark} {settings(trial.set):<24} {100 * trial.val_error:6.2f}{bad}")


def _chosen(choice: "Choice") -> str:
    none = all(trial.failed == len(trial.runs) for trial in choice.trials)
    flags = [*(["no value trains"] if none else []), *(["edge"] if choice.edge else [])]
    return settings(choice.set) + (f" ({', '.join(flags)})" if flags else "")


def settings(values: Mapping[str, Any]) -> str:
    """Settings as the command line has them."""
    return " ".join(f"{key}={value}" for key, value in values.items())


def chosen(request: "Request") -> None:
    """What pilots chose for the arms of a comparison."""
    made = request.tuned.choices
    for choice in made.choices if made else ():
        click.echo(f"tuned    {settings(choice.where)}: {_chosen(choice)}")
    if made:
        click.echo(request.tuned.source)


def pilot_failures(request: "Request", failed: Sequence[int]) -> None:
    """Cells whose pilots failed: a reference cell is one where all train."""
    for point, number in zip(request.points, failed, strict=True):
        if number:
            click.echo(f"failed   {settings(point)}: {number} of {len(request.seeds)} pilots")
    good = sum(number == 0 for number in failed)
    click.echo(f"trained  all pilots in {good} of {count(len(failed), 'cell')}")


def power(
    claim: "Claim", effect: float, chance: float, table: "pd.DataFrame", seeds: int | None
) -> None:
    """The primary claim's pilots, rates of decision by number of seeds, a line for the YAML."""
    from statistics import fmean, stdev

    values = [value for value in claim.values.values() if math.isfinite(value)]
    mean, sd = fmean(values), stdev(values)
    click.echo(f"primary  {claim.text}")
    click.echo(table.to_string(index=False))
    need = f"{seeds} seeds" if seeds is not None else "more seeds than were tried"
    click.echo(
        f"found    {len(values)} pilots: mean {mean:+.3g} {claim.unit}, sd {sd:.3g}; {need} for "
        f"power {chance:g} at {effect:g} {claim.unit}"
    )


def power_with_looks(looks: Sequence[int], effect: float, unit: str, rates: "Rates") -> None:
    """How a study with looks would end, and after how many seeds."""
    click.echo(
        f"looks    {', '.join(map(str, looks))} seeds, at {effect:g} {unit}: "
        f"supported {rates.supported:.2f}, refuted {rates.refuted:.2f}, "
        f"{rates.seeds:.0f} seeds on average"
    )


def submitted(begun: "Begun", request: "Request") -> None:
    """What was submitted to a cluster, and how to go on."""
    from bnstudy.sweep.begin import jobs_of

    new = begun.submitted
    ids = sorted({job.id.partition("_")[0] for job in jobs_of(new).values()})
    stacks = count(sum(len(pack.stacks) for pack in new), "stack")
    if new:
        click.echo(f"submitted {count(len(new), 'job')} with {stacks}, id {', '.join(ids)}")
    if taken := len(begun.packs) - len(new):
        click.echo(f"submitted before, and queued or running: {count(taken, 'job')}")
    place = request.settings.results_dir
    click.echo(
        f"bnstudy watch{'' if place == 'results' else f' results_dir={place}'} shows them; the "
        "same command without --detach waits for them and ends with the results"
    )


def outcome(outcome: "Outcome", seconds: float, signal: int | None, command: str) -> None:
    """How a launch ended: every stack is counted once, under its state."""
    from bnstudy.sweep.protocol import State

    rate = f"; W&B {outcome.tracker}" if outcome.tracker else ""
    click.echo(f"trained  {count(outcome.trained, 'model')} in {seconds / 60:.1f} minutes{rate}")
    for fate in outcome.of(State.FAILED):
        models = count(len(fate.plan.configs), "model")
        click.echo(f"failed   {fate.plan.label}, {models}:\n{fate.error}", err=True)
    for fate in outcome.of(State.DIED):
        times = count(fate.launches, "time")
        how = f" ({fate.error})" if fate.error else ""
        click.echo(f"died     {fate.plan.label}: its worker was killed{how}, {times}", err=True)
    for fate in outcome.of(State.REMOVED):
        times = count(fate.launches, "time")
        click.echo(f"gone     {fate.plan.label}: stored and removed again, {times}", err=True)
    failed = outcome.of(State.FAILED)
    if failed:
        click.echo(
            f"failed   {count(len(failed), 'stack')}; {_retry(command)}",
            err=True,
        )
    left = len(outcome.stacks) - len(outcome.of(State.DONE, State.FAILED))
    if not left or outcome.launcher_error:
        return
    if signal is not None:
        why = "stopped"
    elif outcome.of(State.DIED):
        why = "their workers died"
    elif outcome.of(State.REMOVED):
        why = "removed while they were trained"
    elif failed and outcome.of(State.STOPPED):
        why = "fail_fast=true stopped at the first failure"
    else:
        why = "max_minutes is over"
    click.echo(
        f"left     {count(left, 'stack')} ({why}); the same command continues where this one "
        f"ended: {command}",
        err=True,
    )


def failed_before(failed: "Sequence[Fate]", command: str) -> None:
    """Stacks that are not trained again because they failed."""
    if failed:
        click.echo(
            f"failed   before, and left out now: {', '.join(fate.plan.label for fate in failed)}; "
            f"{_retry(command)}",
            err=True,
        )


def lost(runs: int, command: str) -> None:
    """Runs that somebody removed while others were trained."""
    if runs:
        click.echo(
            f"gone     {count(runs, 'run')} of this grid left the store while it was trained "
            f"(bnstudy rm, or damage); the same command trains what is missing: {command}",
            err=True,
        )


def _retry(command: str) -> str:
    """How what failed is trained again."""
    own = [word for word in command.split(" ") if not word.startswith("retry=")]
    return f"retry=failed trains what failed again: {' '.join(own)} retry=failed"


def cells(plan: "Plan", points: Sequence[Mapping[str, Any]], table: "pd.DataFrame") -> None:
    """A line for each cell that has results: its arm and test error."""
    if table.empty:  # nothing has trained, and there are no metrics
        return
    for cell, point in zip(plan.cells, points, strict=True):
        error = 100 * table[table["cell"] == cell.cell]["test_error"]
        if error.empty:
            continue
        arm = " ".join(f"{k}={v}" for k, v in point.items()) or cell.label
        several = f" (mean; least {error.min():.2f}, most {error.max():.2f} of {len(error)} seeds)"
        psnr = table[table["cell"] == cell.cell].get("test_psnr")
        click.echo(
            f"{cell.cell}  {arm}: test error {error.mean():.2f} %"
            f"{several if len(error) > 1 else ''}"
            f"{f', PSNR {psnr.mean():.2f} dB' if psnr is not None and psnr.notna().all() else ''}"
        )


def studies(composer: "Composer") -> None:
    """Name, claim, source and cost of every study; of one that is stated badly, why."""
    for name in composer.choices("study"):
        try:
            found = composer.study(name)
        except UserError as error:
            click.secho(name, bold=True)
            click.echo(f"  cannot be used: {error}")
            continue
        click.secho(f"{name}  ({found.group})" if found.group else name, bold=True)
        click.echo(f"  claim   {found.claim}\n  source  {found.source}\n  cost    {found.cost}")


def composed(request: "Request", what: str) -> None:
    """What Hydra composed, as its own --cfg prints it."""
    from omegaconf import OmegaConf

    config = request.hydra.copy()
    OmegaConf.set_struct(config, False)
    if what == "job":
        config.pop("hydra")
    elif what == "hydra":
        config = OmegaConf.create({"hydra": config.hydra})
    click.echo(OmegaConf.to_yaml(config), nl=False)
    for key, values in request.axes:
        click.echo(f"# axis {key}: {', '.join(map(str, values))}")


def summary(table: "pd.DataFrame", most: int = 10) -> list[str]:
    """A line for each cell of a table, short."""
    lines = []
    for cell, rows in table.groupby("cell"):
        first = rows.iloc[0]
        lines.append(
            f"{cell}  {first['data.name']} {first['model.name']} {first['norm.name']} "
            f"B={first['train.batch_size']}  {count(len(rows), 'seed')}"
        )
    more = [f"and {len(lines) - most} more"] if len(lines) > most else []
    return [*lines[:most], *more]


def study(runs: "StudyRuns", store: "Store", held: int) -> None:
    """What a study states, its grid, how much of it the store holds, and verdicts if there are."""
    from bnstudy.config import digest
    from bnstudy.studies import lines

    found, planned = runs.study, runs.addresses
    click.secho(f"{found.name}: {found.title}", bold=True)
    for name in ("claim", "source", "rule", "expected", "cost"):
        click.echo(f"{name:<9}{getattr(found, name)}")
    seeds = ", ".join(map(str, runs.seeds))
    click.echo(f"{'grid':<9}scale={runs.scale}: {count(len(runs.cells), 'cell')}, seeds {seeds}")
    for axis, values in runs.axes:
        click.echo(f"{'':<9}{axis}: {', '.join(map(str, values))}")
    click.echo(f"{'status':<9}{held} of {count(len(planned), 'run')} in {store.root}")
    folder = store.root / "studies" / found.name / f"{runs.scale}-{digest(sorted(planned))[:8]}"
    if (folder / "claims.json").is_file():
        for verdict in lines(json.loads((folder / "claims.json").read_text())):
            click.echo(verdict)
        click.echo(folder)


def stored(table: "pd.DataFrame") -> None:
    """What a store holds, a line for each cell; cells of one name by the settings that differ."""
    from bnstudy.config import RESULTS_VERSION

    named = ["data.name", "model.name", "norm.name", "train.batch_size"]
    for _, alike in table.groupby(named):
        own = [
            column
            for column in map(str, alike)
            if "." in column and alike[column].astype(str).nunique(dropna=False) > 1
        ]
        for cell, rows in alike.groupby("cell"):
            first = rows.iloc[0]
            stale = "" if first["results_version"] == RESULTS_VERSION else "  stale"
            differing = "".join(
                f"  {column}={value:g}" if isinstance(value, float) else f"  {column}={value}"
                for column in own
                if (value := first[column]) is not None and value == value  # not NaN: unset
            )
            click.echo(
                f"{cell}  {first['data.name']:<16} {first['model.name']:<9} "
                f"{first['norm.name']:<9} B={first['train.batch_size']:<4} "
                f"{count(len(rows), 'seed'):>8}"
                f"  test error {100 * rows['test_error'].mean():6.2f} %{stale}{differing}"
            )
    click.echo(f"{count(table['cell'].nunique(), 'cell')}, {count(len(table), 'run')}")
