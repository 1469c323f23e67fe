"""`bnstudy sync`: what W&B has not got yet."""

import os
from pathlib import Path
from typing import Any

import click

from bnstudy.cli.places import results_dir
from bnstudy.errors import UserError, count


@click.command()
@click.argument("overrides", nargs=-1)
@click.pass_context
def sync(ctx: click.Context, overrides: tuple[str, ...]) -> None:
    """Push runs to W&B that its server does not have yet; again pushes nothing twice.

    Overrides: results_dir. Exit code 1 when something could not be pushed; it stays for the next
    time.
    """
    from bnstudy import tracking

    place = results_dir(overrides)
    if overrides and not place.is_dir():
        raise UserError(f"results_dir={place}: there is no such folder")
    folder = tracking.folder(place)
    logs, writing = tracking.waiting(folder)
    if writing:
        click.echo(f"{count(writing, 'run')} still being written: later")
    if not logs:
        click.echo(f"nothing to push: {folder} holds no whole run that was not pushed")
        return
    # they are about making runs; these are made
    with tracking.unset((tracking.SWITCH, *tracking.SETTINGS, *tracking.UNUSED)):
        address = _asked(folder, tracking)
        if address is None:
            ctx.exit(1)
        why = tracking.push(logs, lambda n: click.echo(f"{n} of {count(len(logs), 'run')} pushed"))
    if why:
        click.echo(f"some runs were not pushed: {why}; the same command pushes them", err=True)
        ctx.exit(1)
    click.echo(f"all of them are at {address}")


def _asked(folder: Path, tracking: Any) -> str | None:
    """The server's address; None, with a message, where it takes no runs.

    Raises:
        UserError: W&B is not installed, or has no API key.
    """
    for name in ("CACHE", "DATA"):
        os.environ.setdefault(f"WANDB_{name}_DIR", str(folder / name.lower()))
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
    os.environ["WANDB_SILENT"] = "true"
    try:
        address, key = tracking.credentials()
    except ModuleNotFoundError:
        raise UserError("sync needs wandb: uv sync --extra train") from None
    if trouble := tracking.trouble(address, key):
        if trouble == tracking.NO_KEY:
            raise UserError(trouble)
        click.echo(f"nothing was pushed: {trouble}; the runs stay in {folder}", err=True)
        return None
    return address
