"""Commands about what the store holds: ls, show, rm, export, doctor."""

import sys

import click

from bnstudy.cli import present
from bnstudy.cli.completion import complete_selection
from bnstudy.cli.places import config_dir_option, open_store, results_dir
from bnstudy.errors import UserError, count

SURE = 6  # characters of an address that are typed on purpose


words_argument = click.argument(
    "words", nargs=-1, type=click.UNPROCESSED, shell_complete=complete_selection
)


@click.command("ls")
@config_dir_option
@words_argument
def list_cells(config_dir: tuple[str, ...], words: tuple[str, ...]) -> None:
    """List what the store holds, a line for each cell.

    WORDS select: an address or its beginning, filters (norm=group train.batch_size=2,4), or a
    study's name and overrides of its grid.
    """
    from bnstudy.cli.select import select

    selected = select(words, config_dir)
    if not selected.table.empty:
        present.stored(selected.table)
    elif selected.study:
        click.echo(f"nothing of the study is in {selected.store.root}")
    elif selected.store.root.is_dir():
        click.echo(f"the store is empty ({selected.store.root}); bnstudy study batch_size fills it")
    else:
        click.echo(f"there is no {selected.store.root} yet; bnstudy study batch_size creates it")


@click.command()
@config_dir_option
@words_argument
def show(config_dir: tuple[str, ...], words: tuple[str, ...]) -> None:
    """Show records in full, or a study: its claim, grid, and how much of it is in the store.

    WORDS select as for ls; an address must be that of one run or cell.
    """
    from rich.console import Console
    from rich.syntax import Syntax

    from bnstudy.cli.select import select
    from bnstudy.store import encode

    if all(word.startswith("results_dir=") for word in words):
        raise UserError(
            "nothing is named: give an address (bnstudy ls lists them), a study, or filters"
        )
    selected = select(words, config_dir)
    if selected.study:
        present.study(selected.study, selected.store, len(selected.table))
        return
    several = selected.prefix and len(selected.cells) > 1
    found = selected.store.runs(selected.prefix) if several else []
    chosen = [a for a in selected.table["address"] if not found or a in found]
    store = selected.store
    records = sorted((store.get(a) for a in chosen), key=lambda r: (r["cell"], r["seed"]))
    if not records:
        raise UserError(f"nothing to show: {store.root} holds no run")
    text = encode(records if len(records) > 1 else records[0])
    if sys.stdout.isatty():
        Console().print(Syntax(text, "json", background_color="default"))
    else:
        click.echo(text)


@click.command()
@click.option("--stale", is_flag=True, help="All records made under an older RESULTS_VERSION.")
@click.option(
    "--yes", is_flag=True, help="Also remove several cells, or what a short address names."
)
@config_dir_option
@words_argument
def rm(stale: bool, yes: bool, config_dir: tuple[str, ...], words: tuple[str, ...]) -> None:
    """Remove runs, or with --stale all that an older version made.

    WORDS select as for ls. More than one cell, or an address of fewer than 6 characters, is
    removed with --yes only.
    """
    from bnstudy.cli.select import select

    named = [word for word in words if not word.startswith("results_dir=")]
    if bool(named) == stale:
        raise UserError("give an address, a study or filters, or --stale, and not both")
    if stale:
        store = open_store(words)
        gone = sorted(store.stale())
    else:
        selected = select(words, config_dir)
        store, gone = selected.store, list(selected.table["address"])
        short = 0 < len(selected.prefix) < SURE
        if not yes and gone and (short or len(selected.cells) > 1):
            lines = "\n".join(present.summary(selected.table))
            why = f"'{selected.prefix}' is short: " if short else ""
            raise UserError(
                f"{why}this would remove {count(len(gone), 'record')} of "
                f"{count(len(selected.cells), 'cell')}; --yes removes them:\n{lines}"
            )
    for name in gone:
        store.remove(name)
    click.echo(f"removed {count(len(gone), 'record')}")


@click.command()
@click.option("--csv", "csv", metavar="FILE", help="Write the table as CSV; - is standard output.")
@click.option("--parquet", metavar="FILE", help="Write the table as Parquet.")
@config_dir_option
@words_argument
def export(
    csv: str | None, parquet: str | None, config_dir: tuple[str, ...], words: tuple[str, ...]
) -> None:
    """Write the table of runs to a file; WORDS select as for ls."""
    from bnstudy.cli.select import select

    if not (csv or parquet):
        raise UserError("no file is named: give --csv FILE or --parquet FILE")
    table = select(words, config_dir).table
    try:
        if csv:
            table.to_csv(sys.stdout if csv == "-" else csv, index=False)
        if parquet:
            table.to_parquet(parquet)
        sys.stdout.flush()
    except BrokenPipeError:
        raise  # `| head` has read enough: click ends quietly
    except OSError as error:
        raise UserError(f"the table cannot be written: {error}") from None
    click.echo(f"{len(table)} runs", err=csv == "-")


@click.command()
@click.argument("overrides", nargs=-1, type=click.UNPROCESSED)
def doctor(overrides: tuple[str, ...]) -> None:
    """Describe this machine: device, threads, compiler, results folder, data, W&B."""
    from bnstudy.doctor import findings

    for name, value in findings(results_dir(overrides)):
        click.echo(f"{name:<16} {value}")


commands = (list_cells, show, rm, export, doctor)
