"""The command line. Heavy imports live inside the commands: `bnstudy --help` loads no torch."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

import bnstudy
from bnstudy.cli import (
    advise,
    completion,
    figure,
    records,
    sweeps,
    sync,
    tools,
    tuning,
)
from bnstudy.cli.places import config_dir_option, results_dir, writable
from bnstudy.errors import UserError

if TYPE_CHECKING:
    from bnstudy.config.compose import Composer

# before numpy is loaded: workers use one thread each, and a process with several cannot fork
for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS"):
    os.environ.setdefault(name, "1")


TRAINING = ("torch", "torchvision", "sklearn")  # what the extra `train` brings beside W&B


# of files and disks, whoever meets them; a pipe that closes is click's to handle
DISK = (
    errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO,
    errno.ELOOP, errno.EISDIR, errno.ENOTDIR, errno.EEXIST, errno.ENAMETOOLONG,
)  # fmt: skip


def trouble(error: Exception) -> str:
    """What the machine lacks, in a sentence: room or rights on a disk, memory; "" for all else."""
    if isinstance(error, OSError):
        where = f"{error.filename}: " if error.filename else ""
        return f"{where}{error.strerror}" if error.errno in DISK else ""
    if isinstance(error, MemoryError) or "can't allocate memory" in str(error):
        return "this takes more memory than the machine has left: choose fewer data, smaller layers"
    return ""


class Commands(click.Group):
    """A group that turns a user's mistake into one message and exit code 2."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except UserError as error:
            click.echo(f"bnstudy: {error}", err=True)
            ctx.exit(2)
        except ModuleNotFoundError as error:
            if error.name not in TRAINING:
                raise
            click.echo(
                f"bnstudy: this command needs {error.name}, which an installation for analysis "
                "leaves out: uv sync --extra train in the checkout, or pip install bnstudy[train]",
                err=True,
            )
            ctx.exit(2)
        except (OSError, MemoryError, RuntimeError) as error:
            if not (said := trouble(error)) or os.environ.get("BNSTUDY_TRACEBACK", "0") != "0":
                raise
            click.echo(f"bnstudy: {said}", err=True)
            ctx.exit(1)
        except tuning.Unfinished as stopped:
            ctx.exit(stopped.exit_code)
        except KeyboardInterrupt:
            click.echo("bnstudy: interrupted", err=True)
            ctx.exit(130)

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError:
            from bnstudy.errors import unknown

            raise unknown("command", args[0], self.commands) from None


overrides_argument = click.argument(
    "overrides", nargs=-1, type=click.UNPROCESSED, shell_complete=completion.complete_override
)
cfg_option = click.option(
    "--cfg",
    type=click.Choice(["job", "hydra", "all"]),
    help="Print the composed configuration and stop.",
)
dry_run_option = click.option("--dry-run", is_flag=True, help="Print the plan and stop.")


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(bnstudy.__version__, prog_name="bnstudy")
def main() -> None:
    """Where Batch Normalization breaks, why, and what to use instead.

    Settings are Hydra overrides: norm=group data=mnist train.batch_size=4 seeds=5 scale=smoke.
    Everything a command writes goes below results_dir (default: results).
    """


@main.command()
@click.option("-m", "--multirun", is_flag=True, help="Train the grid of comma lists.")
@cfg_option
@config_dir_option
@dry_run_option
@overrides_argument
@click.pass_context
def train(
    ctx: click.Context,
    multirun: bool,
    cfg: str | None,
    config_dir: tuple[str, ...],
    dry_run: bool,
    overrides: tuple[str, ...],
) -> None:
    """Train one cell (one config, all its seeds), or with -m a grid."""
    from bnstudy.cli import execute, present

    said = any(o.lstrip("+").startswith("save_weights=") for o in overrides)
    keep = [] if said else ["save_weights=true"]
    with session(config_dir) as composer:
        request = composer.request([*overrides, *keep], sweep=multirun)
        if request.tuning is not None:
            raise UserError("tune=KEY=V1,V2,... is for 'bnstudy compare': train takes one value")
        if cfg:
            present.composed(request, cfg)
            return
        if request.looks:
            raise UserError("until=conclusive is for 'bnstudy study' and 'bnstudy compare'")
        result = execute.train_missing(request, composer, dry_run)
        if result is None:
            return
        present.cells(result.plan, request.points, execute.table_of(request, result.plan))
        ctx.exit(result.exit_code)


@main.command()
@cfg_option
@config_dir_option
@dry_run_option
@click.option("--detach", is_flag=True, help="Submit jobs to a cluster and return.")
@overrides_argument
@click.pass_context
def study(
    ctx: click.Context,
    cfg: str | None,
    config_dir: tuple[str, ...],
    dry_run: bool,
    detach: bool,
    overrides: tuple[str, ...],
) -> None:
    """Run studies: bnstudy study NAME [NAME ...] [overrides]; without a name, list them.

    NAME is a study, a group of them, or all.
    """
    from bnstudy.cli import execute, looks, present
    from bnstudy.sweep import hydra_launcher

    names = [o for o in overrides if "=" not in o]
    rest = [o for o in overrides if "=" in o]
    worst = 0
    with session(config_dir) as composer:
        if not names:
            present.studies(composer)
            return
        requests = [composer.request(rest, study=s) for s in composer.studies(names)]
        if cfg:
            for request in requests:
                present.composed(request, cfg)
            return
        for request in requests:
            hydra_launcher.check(request, detach)
        judges = execute.judges_of(requests)
        for request in requests:
            assert request.study is not None
            name = request.study.name
            if len(requests) > 1:
                click.secho(f"study {name}", bold=True)
            alone = len(requests) == 1
            before = request
            request = tuning.settled(request, composer, judges, dry_run)
            own = judges if request is before else execute.judges_of([request])
            train = looks.study if request.looks else execute.train_missing
            result = train(request, composer, dry_run, own, alone, detach=detach)
            if result is None:
                continue
            worst = max(worst, result.exit_code)
            if result.signal is not None or (request.settings.fail_fast and result.exit_code):
                break
            options = [word for folder in config_dir for word in ("--config-dir", folder)]
            words = ["study", name, *options, *rest]
            execute.finish_study(request, result.plan, execute.command_line(words))
    ctx.exit(worst)


@main.command()
@cfg_option
@config_dir_option
@dry_run_option
@click.option("--metric", default="test_error", show_default=True, help="Column of the table.")
@click.option("--figure", is_flag=True, help="Draw the comparison, too.")
@overrides_argument
@click.pass_context
def compare(
    ctx: click.Context,
    cfg: str | None,
    config_dir: tuple[str, ...],
    dry_run: bool,
    metric: str,
    figure: bool,
    overrides: tuple[str, ...],
) -> None:
    """Compare arms: bnstudy compare norm=batch,group train.batch_size=2,32.

    Prints the table of means and paired differences to the first arm, and writes it as text, CSV,
    Markdown and LaTeX.

    Arms with settings of their own are norms with settings, ; in between:
    bnstudy compare arms='batch; group num_groups=2; group num_groups=8'.
    """
    from bnstudy.cli import compare as arms
    from bnstudy.cli import execute, looks, present

    with session(config_dir) as composer:
        request = composer.request(overrides)
        if not request.axes:
            raise UserError("nothing to compare: give a comma list, such as norm=batch,group")
        if cfg:
            present.composed(request, cfg)
            return
        judge = execute.judge_of_metric(request, metric)
        request = tuning.settled(request, composer, judge, dry_run)
        if request.looks:
            result = looks.compare(request, composer, dry_run, judge, metric)
        else:
            result = execute.train_missing(request, composer, dry_run, judge)
        if result is None:
            return
        arms.show(request, result.plan, metric, figure)
        present.chosen(request)
        ctx.exit(result.exit_code)


@main.command()
@click.option(
    "--folder",
    metavar="DIR",
    help="Report the studies below DIR instead, such as the committed ones; write DIR/report.html.",
)
@overrides_argument
def report(overrides: tuple[str, ...], folder: str | None) -> None:
    """Write one self-contained HTML page of all studies that have results."""
    from bnstudy import advice
    from bnstudy import report as page
    from bnstudy.atomic import write_atomically

    if folder is None:
        evidence = results_dir(overrides)
        place = evidence / "runs"
        searched = place / "studies"
    elif overrides:
        raise UserError(f"--folder {folder} says where results are: '{overrides[0]}' is too much")
    else:
        evidence = place = searched = Path(folder)
        if not place.is_dir():
            raise UserError(f"--folder {folder}: there is no such folder")
    found = page.collect(searched)
    writable(place)
    try:
        lines, unadvised = advice.strongest(evidence), ""
    except UserError as error:  # a result that is damaged hides no other: the page says so
        lines, unadvised = [], f"No advice: {error}."
    path = place / "report.html"
    write_atomically(path, page.render(found, lines, place, unadvised))
    click.echo(f"{len(found)} stud{'y' if len(found) == 1 else 'ies'}: {path}")


for command in (
    *tuning.commands,
    *records.commands,
    *tools.commands,
    advise.advise,
    sweeps.watch,
    figure.figure,
    sync.sync,
    completion.completion,
):
    main.add_command(command)


@contextmanager
def session(config_dir: tuple[str, ...]) -> Iterator["Composer"]:
    """A Hydra session for the project's configs and the user's."""
    from bnstudy.config.compose import hydra_session

    with hydra_session(config_dir) as composer:
        yield composer
