"""Bring the store up to what a command asked for: plan, show the plan, train what is missing."""

import json
import shlex
import shutil
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bnstudy.cli import mirror, present
from bnstudy.cli.apart import Apart
from bnstudy.cli.places import writable
from bnstudy.cli.planning import place_of, planned, runs_of, store_of, without_failed
from bnstudy.config import Config
from bnstudy.errors import UserError, unknown
from bnstudy.sweep.begin import Begun, begin
from bnstudy.sweep.launch import Outcome, launch
from bnstudy.sweep.plan import Plan
from bnstudy.sweep.protocol import Execution, State

if TYPE_CHECKING:
    import pandas as pd

    from bnstudy.config.compose import Composer, Request
    from bnstudy.studies.results import Protocol
    from bnstudy.sweep.registration import Registration


@dataclass
class Result:
    """A plan and how it was carried out."""

    plan: Plan
    outcome: Outcome = field(default_factory=Outcome)  # of what was missing
    signal: int | None = None  # that stopped it
    lost: int = 0  # runs that were in the store meanwhile and are not in it any more

    @property
    def exit_code(self) -> int:
        """0 also when max_minutes was over; 1 when something failed or was removed meanwhile;
        128 + a signal's number."""
        if self.signal is not None:
            return 128 + self.signal
        lost = self.outcome.of(State.FAILED, State.DIED, State.REMOVED)
        return 1 if self.lost or lost else 0


def train_missing(
    request: "Request",
    composer: "Composer",
    dry_run: bool,
    judges: Apart | None = None,
    alone: bool = True,
    seeds: Sequence[int] | None = None,
    detach: bool = False,
) -> Result | None:
    """Plan, show the plan, train what is missing; None after a dry run, and when it is submitted.

    What a study asks is registered before anything of it is trained.

    Args:
        judges: asked, when something is missing, whether what is trained can be judged.
        alone: whether nothing else is trained by this command: then the planner may work itself.
        seeds: of the request, if not all: those of a look. What trains together follows from them
            alone, so a look's runs are the same bits however the command came to it.
        detach: submit jobs to a cluster and return, rather than wait for them.

    Raises:
        UserError: something of the request cannot train; nothing is written then.
    """
    mirror.settings_of(request)  # a mistake in them is told before anything is computed
    with place_of(request) as place:
        plan, failed = without_failed(request, planned(request, place, judges, seeds))
        present.failed_before(failed, command_of(request))
        if not plan.stacks:
            if not failed:
                present.nothing_missing(plan)
            present.tuned(request)
            return Result(plan, Outcome(failed))
        forms = judges.result() if judges is not None else None
        from bnstudy.cli.watch import Watch
        from bnstudy.sweep import hydra_launcher as hydra

        hydra.check(request, detach)
        present.plan(plan, request, hydra.workers_for(request, plan.stacks))
        if dry_run:
            return None
        mirror.unused(request)
        if not hydra.on_cluster(request):  # its nodes are other machines
            check_device(request, plan)
        writable(Path(request.settings.results_dir))
        runs = runs_of(request)
        if place != runs and (place / "cache").is_dir():
            shutil.copytree(place / "cache", runs / "cache", dirs_exist_ok=True)
    if request.study and forms:
        register(request, plan, forms[request.study.name])
    launcher = hydra.launcher_for(request, composer, plan, alone)
    execution, divide = execution_of(request, launcher.__name__), hydra.divide_for(request)
    if detach:
        begun = Begun()
        begin(plan.stacks, execution, launcher, divide, store_of(request).held, begun)
        present.submitted(begun, request)
        return None
    watch, started = Watch(), time.monotonic()
    outcome = launch(
        plan.stacks,
        execution,
        launcher,
        divide,
        store_of(request).held,
        watch,
        present.note,
    )
    mirror.heed(outcome)
    outcome.stacks += failed
    present.outcome(outcome, time.monotonic() - started, watch.signal, command_of(request))
    if outcome.launcher_error:
        raise UserError(f"the launcher could not start its workers: {outcome.launcher_error}")
    if not outcome.complete:
        writable(Path(request.settings.results_dir))  # a full disk looks like dead workers
    lost = lost_of(request, plan, outcome)
    present.lost(lost, command_of(request))
    return Result(plan, outcome, watch.signal, lost)


def lost_of(request: "Request", plan: Plan, outcome: Outcome) -> int:
    """Runs of a plan that the store held before or during a launch, and does not hold after it."""
    left = (fate for fate in outcome.stacks if fate.state is not State.DONE)
    missing = {address for fate in left for address in fate.plan.addresses}
    held = store_of(request).held([cell.cell for cell in plan.cells])
    return len(set(plan.addresses) - missing - held)


def check_device(request: "Request", plan: Plan) -> None:
    """Refuse a device that this machine lacks, or a precision that the device does not support."""
    from bnstudy.work.trainer import device, precision

    where = device(request.settings.device)
    for cell in plan.cells:
        precision(cell, where)


def execution_of(request: "Request", launcher: str) -> Execution:
    """How a request computes, for its workers."""
    settings = request.settings
    minutes = settings.max_minutes
    return Execution(
        results_dir=str(Path(settings.results_dir).absolute()),
        device=settings.device,
        compile=settings.compile,
        save_weights=settings.save_weights,
        checkpoint_minutes=settings.checkpoint_minutes,
        fail_fast=settings.fail_fast,
        tracker=mirror.settings_of(request),
        study=request.study.name if request.study else "",
        scale=settings.scale.name,
        command=command_of(request),
        launcher=launcher,
        deadline=time.time() + 60 * minutes if minutes else None,
    )


def judges_of(requests: "Sequence[Request]") -> Apart:
    """Refuses grids that their studies could not judge; all of them before any is trained.

    Its result is the canonical form of each study's claims, by the study's name.
    """
    return Apart(_judgeable, [(r.study, r.cells, r.seeds, r.looks) for r in requests])


def _judgeable(
    grids: Sequence[tuple[Any, Sequence[Config], Sequence[int], Sequence[int]]],
) -> dict[str, Any]:
    from bnstudy.studies.planned import check

    forms = {}
    for study, cells, seeds, looks in grids:
        check_levels(looks)
        forms[study.name] = check(study, cells, seeds)
    return forms


def check_levels(looks: Sequence[int]) -> None:
    """Refuse looks at which no result could reach its level."""
    if looks:
        from bnstudy.stats.looks import levels

        levels(looks)


def judge_of_metric(request: "Request", metric: str) -> Apart:
    """Refuses a metric that no run of the request will have."""
    return Apart(_measurable, request.cells, metric, request.looks)


def _measurable(cells: Sequence[Config], metric: str, looks: Sequence[int]) -> None:
    from bnstudy.studies.planned import measured

    check_levels(looks)
    known = {name for cell in cells for name in measured(cell)} | {"wall_seconds", "stack_seconds"}
    # of what is measured per layer or per step, `measured` names some that any run has
    families = {name.partition("/")[0] for name in known if "/" in name}
    name = metric.removesuffix("_last5")
    if name not in known and name.partition("/")[0] not in families:
        raise unknown("metric", metric, known)


def asked(request: "Request", plan: Plan, form: dict[str, Any]) -> "tuple[Path, Registration]":
    """The file of a grid's registrations, and what a request asks now.

    `plan` may be that of a look; `form` is the canonical form of the study's claims.
    """
    from bnstudy.config import digest
    from bnstudy.sweep.registration import Registration, claims_hash, rules

    assert request.study is not None
    name, scale = request.study.name, request.settings.scale.name
    whole = replace(plan, seeds=request.seeds)
    tuned = getattr(request, "tuned", None)
    now = Registration(
        study=name,
        scale=scale,
        claims=claims_hash(form),
        grid=digest(sorted(whole.addresses)),
        tuning=getattr(tuned, "hash", ""),
        until=request.settings.until,
        looks=request.looks,
        rules=rules(),
        form=form,
        command=command_of(request),
        planned=whole.runs,
    )
    folder = runs_of(request) / "registrations"
    return folder / f"{name}-{scale}-{whole.grid_hash}.json", now


def register(request: "Request", plan: Plan, form: dict[str, Any], training: bool = True) -> None:
    """Write down what a study asks, where it is not written yet (see `sweep.registration`)."""
    from bnstudy.sweep import registration

    path, now = asked(request, plan, form)
    whole, cells = replace(plan, seeds=request.seeds), [cell.cell for cell in plan.cells]

    def held() -> int:
        return len(store_of(request).held(cells) & set(whole.addresses))

    registration.register(path, now, held, training)


def protocol_of(request: "Request", plan: Plan, form: dict[str, Any]) -> "Protocol":
    """What was fixed for a study before its runs; a change that nothing trained after is noted."""
    from bnstudy.config import digest
    from bnstudy.studies.results import Protocol
    from bnstudy.sweep import registration

    register(request, plan, form, training=False)
    path, now = asked(request, plan, form)
    source = getattr(getattr(request, "tuned", None), "source", "")
    return Protocol(
        seeds=request.seeds,
        looks=request.looks,
        fixed=digest(now.model_dump(mode="json", include=registration.FIXED)),
        registration=path,
        tuning=Path(source) if source else None,
        standing=lambda created: registration.standing(path, now, created),
    )


def finish_study(
    request: "Request", plan: Plan, command: str = ""
) -> tuple[list[dict[str, Any]], Path]:
    """Write a study's results where they are not there yet, print its verdicts and their paths.

    command: that runs this study alone, where the one that was typed runs several.
    Returns the verdicts and the folder of the results.
    """
    study = request.study
    assert study is not None
    scale = request.settings.scale.name
    folder = runs_of(request) / "studies" / study.name / f"{scale}-{plan.grid_hash}"

    def written() -> tuple[list[dict[str, Any]], list[str]]:
        from bnstudy import studies
        from bnstudy.studies.planned import check

        form = check(study, request.cells, request.seeds)
        verdicts = studies.results_of(
            study,
            store_of(request).checksums(plan.addresses, [cell.cell for cell in plan.cells]),
            lambda: table_of(request, plan),
            folder,
            scale=scale,
            cells=plan.cells,
            planned=plan.runs,
            command=command or command_of(request),
            protocol=protocol_of(request, plan, form),
        )
        told = json.loads((folder / "study.json").read_text())
        notes = [
            told["coverage"],
            told["registered"],
            *(f"failed: {text}" for text in told["failed_runs"]),
        ]
        return verdicts, [*studies.lines(verdicts), *filter(None, notes)]

    # apart: what draws starts threads, and the next study's workers are forked from here
    verdicts, lines = Apart(written).result()
    names = ("figure.png", "table.csv", "claims.json")
    for line in (*lines, *(folder / name for name in names)):
        present.line(line)
    mirror.study(request, folder)
    return verdicts, folder


def table_of(request: "Request", plan: Plan) -> "pd.DataFrame":
    """A row for each run of a plan that the store holds."""
    return store_of(request).table(plan.addresses, [cell.cell for cell in plan.cells])


def command_of(request: "Request") -> str:
    """The command that asked for it, for records."""
    return request.command or command_line(sys.argv[1:])


def command_line(words: Sequence[str]) -> str:
    """Words as they can be typed again; the folder of data is named by BNSTUDY_DATA."""
    shown = ['data.root="$BNSTUDY_DATA"' if w.lstrip("+").startswith("data.root=")
             else shlex.quote(w) for w in words]  # fmt: skip
    return " ".join(["bnstudy", *shown])
