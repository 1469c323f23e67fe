"""Pilots: `tune` chooses settings by them, `power` the number of seeds; and both ahead of a study.

Pilots are measured on the validation part, with seeds that no claim is judged by.
"""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click

from bnstudy.cli import completion
from bnstudy.cli.apart import Apart
from bnstudy.cli.places import config_dir_option, writable
from bnstudy.errors import UserError

if TYPE_CHECKING:
    import pandas as pd

    from bnstudy.config.compose import Composer, Request
    from bnstudy.config.settings import Seeds
    from bnstudy.config.tuned import Choices
    from bnstudy.stats import Claim
    from bnstudy.stats.power import Rates
    from bnstudy.sweep.plan import Plan
    from bnstudy.sweep.tune import Point

overrides_argument = click.argument(
    "overrides", nargs=-1, type=click.UNPROCESSED, shell_complete=completion.complete_override
)
dry_run_option = click.option("--dry-run", is_flag=True, help="Print the plan and stop.")


class Unfinished(Exception):
    """Pilots are missing, for a reason that was printed: nothing can be chosen by them yet."""

    def __init__(self, exit_code: int) -> None:
        super().__init__(exit_code)
        self.exit_code = exit_code


@click.command()
@config_dir_option
@dry_run_option
@overrides_argument
def tune(config_dir: tuple[str, ...], dry_run: bool, overrides: tuple[str, ...]) -> None:
    """Choose settings on pilots: bnstudy tune STUDY [overrides].

    By validation error, for every arm and cell, as the study's block `tune:` says; writes the file
    of choices that `bnstudy study` then uses.
    """
    from bnstudy.atomic import write_atomically
    from bnstudy.cli import present
    from bnstudy.config import tuned
    from bnstudy.config.compose import hydra_session

    with hydra_session(config_dir) as composer:
        request = _study_request(composer, overrides, "tune")
        if request.tuning is None:
            assert request.study is not None
            raise UserError(
                f"the study {request.study.name} states nothing to tune: add to "
                f"{composer.study_file(request.study.name)}: tune: "
                "{axes: {optimizer.lr: [0.05, 0.1, 0.2]}}"
            )
        path = tuned.file_to_write(request, composer.config_dirs)
        if not dry_run:
            writable(path.parent)
        choices = chosen(request, composer, dry_run)
        if choices is None:
            return
        write_atomically(path, choices.text())
        present.choices(choices)
        present.line(path)


def _study_request(composer: "Composer", overrides: Sequence[str], command: str) -> "Request":
    """The request of a command about one study's pilots, which are then of no use to its claims."""
    names = [o for o in overrides if "=" not in o]
    if len(names) != 1:
        raise UserError(f"name one study: bnstudy {command} STUDY [overrides]")
    words = [o for o in overrides if o not in names]
    if command == "tune":
        if any(o.startswith("tune=") for o in words):
            raise UserError("'bnstudy tune' takes no tune=: the study's YAML says what to tune")
        words.append("tune=published")
    request = composer.request(words, study=composer.study(names[0]))
    if request.tuning is not None:
        by_hand = [k for k in request.tuning.tune.axes if k in request.by_hand]
        if by_hand and command == "tune":
            raise UserError(f"{by_hand[0]} is tuned by this command: leave it out")
    return request


# --- choices -------------------------------------------------------------------------------------


def settled(
    request: "Request", composer: "Composer", judges: Apart, dry_run: bool = False
) -> "Request":
    """The request with its tuned settings: with tune=auto, pilots are trained first.

    Args:
        judges: asked before pilots are trained whether what comes after them can be judged.

    Raises:
        Unfinished: pilots are missing.
    """
    from bnstudy.atomic import write_atomically
    from bnstudy.cli import planning, present
    from bnstudy.config import tuned

    if request.settings.tune != "auto":
        return request
    judges.result()
    path = tuned.own_file(request)
    if not dry_run:
        with planning.place_of(request) as place:
            unchosen = replace(request, tuned=tuned.Tuned())
            present.after_pilots(planning.planned(unchosen, place), request)
    choices = chosen(request, composer, dry_run)
    if choices is None:
        return request
    writable(path.parent)
    write_atomically(path, choices.text())
    present.choices(choices)
    return tuned.applied(request, choices, str(path))


def chosen(request: "Request", composer: "Composer", dry_run: bool) -> "Choices | None":
    """The choices at every point of a request, whose pilots are trained; None after a dry run.

    Raises:
        Unfinished: pilots are missing.
    """
    from bnstudy.config import RESULTS_VERSION, seed_list
    from bnstudy.config.tuned import Choices
    from bnstudy.sweep import tune as search

    tuning = request.tuning
    assert tuning is not None
    places = search.points(tuning, request.cells, request.points)
    seeds = tuple(seed_list(tuning.tune.seeds))
    open_ = places
    for extension in range(search.EXTENSIONS + 1):
        if extension:
            open_ = [place for place in open_ if place.extend()]
        if open_ and not _tried(open_, request, seeds, composer, dry_run):
            return None
    return Choices(
        command=_command(request, composer),
        results_version=RESULTS_VERSION,
        study=request.study.name if request.study else "",
        scale=request.settings.scale.name,
        grid=tuning.grid(request.cells),
        tune=tuning.tune,
        choices=[place.choice() for place in places],
    )


def _tried(
    places: "Sequence[Point]", request: "Request", seeds: tuple[int, ...], composer: "Composer",
    dry_run: bool,
) -> bool:  # fmt: skip
    """Train what the points lack and note how it went; False after a dry run."""
    from bnstudy.sweep.plan import addresses

    lacking = [
        (place, values, cell) for place in places for values, cell in place.missing().items()
    ]
    pilots = replace(
        request,
        cells=tuple(cell for _, _, cell in lacking),
        points=tuple({**p.where, **dict(zip(p.axes, v, strict=True))} for p, v, _ in lacking),
        seeds=seeds,
        axes=_axes(request, places),
        looks=(),
    )
    plan = _trained(pilots, composer, dry_run)
    if plan is None:
        return False
    outcomes = Apart(_outcomes, pilots, plan).result()
    for (place, values, _), cell, (errors, failed, seen) in zip(
        lacking, plan.cells, outcomes, strict=True
    ):
        place.tried(values, cell, errors, failed, addresses(cell, seeds), seen)
    return True


def _axes(request: "Request", places: "Sequence[Point]") -> tuple[tuple[str, tuple[Any, ...]], ...]:
    """The axes of pilots, for the plan."""
    assert request.tuning is not None
    own = [axis for axis in request.axes if axis[0] not in request.tuning.shared]
    tuned: dict[str, dict[Any, None]] = {}
    for place in places:
        for key, values in place.axes.items():
            tuned.setdefault(key, {}).update(dict.fromkeys(values))
    return (*own, *((key, tuple(sorted(v, key=_rank))) for key, v in tuned.items()))


def _rank(value: Any) -> tuple[bool, Any]:
    number = isinstance(value, int | float)
    return (not number, value if number else 0)


def _trained(pilots: "Request", composer: "Composer", dry_run: bool) -> "Plan | None":
    """The plan of pilots, all of which are trained; None after a dry run.

    Raises:
        Unfinished: some are missing.
    """
    from bnstudy.cli import execute, planning, present
    from bnstudy.config.tuned import Tuned

    present.pilots(pilots)
    plain = replace(pilots, tuning=None, tuned=Tuned())
    result = execute.train_missing(plain, composer, dry_run, alone=False)
    if result is None:
        return None
    held = planning.store_of(plain).held([cell.cell for cell in result.plan.cells])
    if not held.issuperset(result.plan.addresses):
        raise Unfinished(result.exit_code)
    return result.plan


def _outcomes(pilots: "Request", plan: "Plan") -> list[tuple[list[float], int, list[float]]]:
    """Of each cell of a plan: validation errors by seed, how many runs failed, errors as measured.

    A run that failed is one of `kit.failed`. Called apart: what the studies import stays out of a
    process that still has to fork workers.
    """
    from bnstudy.cli import execute
    from bnstudy.studies import kit

    rows = dict(iter(execute.table_of(pilots, plan).groupby("cell")))
    found = []
    for cell in plan.cells:
        runs = rows[cell.cell].sort_values("seed")
        failed = kit.failed(runs) | runs["val_error"].isna()
        errors, seen = counted(runs["val_error"], failed, kit.chance(runs))
        found.append((errors, int(failed.sum()), seen))
    return found


def counted(
    measured: "pd.Series[float]", failed: "pd.Series[bool]", chance: "pd.Series[float]"
) -> tuple[list[float], list[float]]:
    """Validation errors as they count in a choice, and as measured; without one: chance.

    A failed run counts at chance. A restored image can be worse than the noisy one, an error above
    1: that counts as it is, or a run that failed would be preferred to one that learned.
    """
    seen = measured.mask(measured.isna(), chance).astype(float)
    return seen.mask(failed & (seen <= 1), chance).astype(float).tolist(), seen.tolist()


def _command(request: "Request", composer: "Composer") -> str:
    """The command that makes a file of choices: without what says only how to compute."""
    from bnstudy.cli.execute import command_line
    from bnstudy.config.overrides import deciding

    keys = {o: o.partition("=")[0].lstrip("+") for o in request.overrides}
    own = [o for o, key in keys.items() if deciding(key)]
    folders = [word for folder in composer.config_dirs for word in ("--config-dir", folder)]
    scale = f"scale={request.settings.scale.name}"
    if request.study is None:
        more = [o for o, key in keys.items() if key in ("arms", "seeds", "tune")]
        return command_line(["compare", *folders, scale, *own, *more])
    return command_line(["tune", request.study.name, *folders, scale, *own])


# --- power ---------------------------------------------------------------------------------------


@click.command()
@config_dir_option
@dry_run_option
@click.option("--effect", type=float, help="Smallest effect of interest, in the claim's unit.")
@overrides_argument
def power(
    config_dir: tuple[str, ...], dry_run: bool, effect: float | None, overrides: tuple[str, ...]
) -> None:
    """How many seeds a study needs: bnstudy power STUDY [overrides].

    Trains pilots of the whole grid at the tuned settings, and resamples the primary claim's
    differences.
    """
    from bnstudy import studies
    from bnstudy.cli import execute, present
    from bnstudy.config.compose import hydra_session
    from bnstudy.config.settings import Power

    with hydra_session(config_dir) as composer:
        request = _study_request(composer, overrides, "power")
        study = request.study
        assert study is not None
        grid = study.scales[request.settings.scale.name]
        stated = grid.power
        smallest = stated.effect if effect is None and stated else effect
        if smallest is None:
            raise UserError(
                f"the study {study.name} states no smallest effect of interest at this scale: give "
                "--effect X, in the unit of its primary claim"
            )
        chance = stated.power if stated else Power.model_fields["power"].default
        judges = execute.judges_of([_pilots(request)])
        Apart(_check_effect, study.name, judges.result()[study.name], smallest).result()
        pilots = _pilots(settled(request, composer, judges, dry_run))
        present.tuned(pilots)
        plan = _trained(pilots, composer, dry_run)
        if plan is None:
            return
        present.pilot_failures(pilots, [failed for _, failed, _ in _outcomes(pilots, plan)])
        claims = studies.module(study).claims(execute.table_of(pilots, plan))
        primary = next(claim for claim in claims if claim.primary)
        needed, seeds, stepwise = _needed(primary, smallest, chance, grid.looks)
        present.power(primary, smallest, chance, needed, seeds)
        if stepwise is not None:
            present.power_with_looks(grid.looks, smallest, primary.unit, stepwise)


def _check_effect(study: str, form: dict[str, Any], effect: float) -> None:
    """Refuse what no pilots could help: an effect at the primary claim's threshold, or no claim."""
    from bnstudy.stats.power import check_effect

    primary = next((claim for claim in form["claims"] if claim["primary"]), None)
    if primary is None:
        raise UserError(f"the study {study} has no primary claim: no power to compute")
    check_effect(effect, primary["kind"], primary["threshold"])


def _pilots(request: "Request") -> "Request":
    """The pilots of a study's whole grid: its cells on the validation part, with pilot seeds."""
    from bnstudy.config import seed_list
    from bnstudy.config.settings import Tune
    from bnstudy.config.tuning import variant
    from bnstudy.sweep.tune import VALIDATION

    block = request.tuning.tune if request.tuning else None
    default: Seeds = Tune.model_fields["pilots"].default
    seeds = tuple(seed_list(block.pilots if block else default))
    if both := sorted(set(seeds) & set(request.seeds)):
        named = f"seed{'s' * (len(both) > 1)} {', '.join(map(str, both))}"
        be, are = ("pilots", "are") if len(both) > 1 else ("a pilot", "is")
        raise UserError(
            f"{named} would be {be} and {are} the study's: give the study other seeds, "
            "or state `tune: pilots:` in its YAML"
        )
    return replace(
        request, cells=tuple(variant(c, VALIDATION) for c in request.cells), seeds=seeds, looks=()
    )


def _needed(
    primary: "Claim", effect: float, chance: float, looks: Sequence[int]
) -> "tuple[pd.DataFrame, int | None, Rates | None]":
    """Rates of verdicts by number of seeds, the smallest number that is enough, rates with looks.

    A lost pilot is left out.
    """
    from bnstudy.stats import power

    values = [v for _, v in sorted(primary.values.items()) if math.isfinite(v)]
    how: Any = {"kind": primary.kind, "threshold": primary.threshold}
    stepwise = power.decision_rate(values, looks[-1], effect, looks=looks, **how) if looks else None
    table = power.table(values, effect, **how)
    return table, power.seeds_needed(values, effect, power=chance, **how), stepwise


commands = (tune, power)
