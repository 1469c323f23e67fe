"""Commands about what the store holds: ls, show, rm, export, doctor."""

import sys

import click

from bnstudy.cli import present
from bnstudy.cli.completion import complete_address
from bnstudy.cli.places import open_store, results_dir
from bnstudy.errors import UserError


@click.command("ls")
@click.argument("overrides", nargs=-1, type=click.UNPROCESSED)
def list_cells(overrides: tuple[str, ...]) -> None:
    """List what the store holds, a line for each cell."""
    store = open_store(overrides)
    table = store.table()
    if table.empty:
        click.echo("the store is empty; bnstudy study batch_size fills it")
        return
    present.stored(table)


@click.command()
@click.argument("address", shell_complete=complete_address)
@click.argument("overrides", nargs=-1, type=click.UNPROCESSED)
def show(address: str, overrides: tuple[str, ...]) -> None:
    """Show records in full; ADDRESS is that of a run or cell, or the beginning of one."""
    from rich.console import Console
    from rich.syntax import Syntax

    from bnstudy.store import encode

    store = open_store(overrides)
    records = sorted((store.get(a) for a in store.runs(address)), key=lambda r: r["seed"])
    text = encode(records if len(records) > 1 else records[0])
    if sys.stdout.isatty():
        Console().print(Syntax(text, "json", background_color="default"))
    else:
        click.echo(text)


@click.command()
@click.argument("address", required=False, shell_complete=complete_address)
@click.option("--stale", is_flag=True, help="All records made under an older RESULTS_VERSION.")
@click.argument("overrides", nargs=-1, type=click.UNPROCESSED)
def rm(address: str | None, stale: bool, overrides: tuple[str, ...]) -> None:
    """Remove a run or a whole cell, or with --stale all that an older version made."""
    if address and "=" in address:
        address, overrides = None, (address, *overrides)
    if bool(address) == stale:
        raise UserError("give an address, or --stale, and not both")
    store = open_store(overrides)
    gone = store.stale() if stale else store.runs(address or "")
    for name in gone:
        store.remove(name)
    click.echo(f"removed {len(gone)} record{'' if len(gone) == 1 else 's'}")


@click.command()
@click.option("--csv", "csv", metavar="FILE", help="Write the table as CSV; - is the screen.")
@click.option("--parquet", metavar="FILE", help="Write the table as Parquet.")
@click.argument("overrides", nargs=-1, type=click.UNPROCESSED)
def export(csv: str | None, parquet: str | None, overrides: tuple[str, ...]) -> None:
    """Write the table of all runs to a file."""
    if not (csv or parquet):
        raise UserError("say where: --csv FILE or --parquet FILE")
    table = open_store(overrides).table()
    try:
        if csv:
            table.to_csv(sys.stdout if csv == "-" else csv, index=False)
        if parquet:
            table.to_parquet(parquet)
    except OSError as error:
        raise UserError(f"the table cannot be written: {error}") from None
    click.echo(f"{len(table)} runs", err=csv == "-")


@click.command()
@click.argument("overrides", nargs=-1, type=click.UNPROCESSED)
def doctor(overrides: tuple[str, ...]) -> None:
    """Say what this machine has: device, threads, compiler, results folder, data, W&B."""
    from bnstudy.doctor import findings

    for name, value in findings(results_dir(overrides)):
        click.echo(f"{name:<16} {value}")


commands = (list_cells, show, rm, export, doctor)
