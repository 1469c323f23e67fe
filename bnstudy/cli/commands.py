"""The command line. Heavy imports live inside the commands: `bnstudy --help` loads no torch."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

import bnstudy
from bnstudy.cli import tools
from bnstudy.cli.places import open_store, results_dir, writable
from bnstudy.errors import UserError, count

if TYPE_CHECKING:
    from bnstudy.config.compose import Composer, Request


class Commands(click.Group):
    """A group that turns a user's mistake into one message and exit code 2."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except UserError as error:
            click.echo(f"bnstudy: {error}", err=True)
            ctx.exit(2)
        except KeyboardInterrupt:
            ctx.exit(130)

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError:
            from bnstudy.errors import unknown

            raise unknown("command", args[0], self.commands) from None


def complete_override(ctx: click.Context, param: click.Parameter, text: str) -> list[str]:
    """Keys, and after `group=` the choices."""
    from bnstudy.config import CONFIGS, GROUPS, schema_keys

    key, equals, _ = text.partition("=")
    if equals and key in GROUPS:
        return [f"{key}={p.stem}" for p in sorted((CONFIGS / key).glob("*.yaml"))]
    studies = [p.stem for p in sorted((CONFIGS / "study").glob("*.yaml"))]
    first = studies if ctx.info_name == "study" else []
    return [k for k in [*first, *(f"{n}=" for n in [*GROUPS, *schema_keys()])]
            if k.startswith(text)]  # fmt: skip


overrides_argument = click.argument(
    "overrides", nargs=-1, type=click.UNPROCESSED, shell_complete=complete_override
)
config_dir_option = click.option(
    "--config-dir", multiple=True, metavar="DIR", help="A folder of configs of your own."
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
def train(
    multirun: bool,
    cfg: str | None,
    config_dir: tuple[str, ...],
    dry_run: bool,
    overrides: tuple[str, ...],
) -> None:
    """Train one cell (one config, all its seeds), or with -m a grid."""
    from bnstudy.cli import reconcile

    said = any(o.lstrip("+").startswith("save_weights=") for o in overrides)
    keep = [] if said else ["save_weights=true"]
    with session(config_dir) as composer:
        request = composer.request([*overrides, *keep], sweep=multirun)
        if cfg:
            print_config(request, cfg)
            return
        plan = reconcile.train_missing(request, composer, dry_run)
        if plan is None:
            return
        table = reconcile.store_of(request).table(plan.addresses)
        for cell, point in zip(plan.cells, request.points, strict=True):
            error = 100 * table[table["cell"] == cell.cell]["test_error"]
            if error.empty:
                continue
            arm = " ".join(f"{k}={v}" for k, v in point.items()) or cell.label
            several = (
                f" (mean; least {error.min():.2f}, most {error.max():.2f} of {len(error)} seeds)"
            )
            click.echo(
                f"{cell.cell}  {arm}: test error {error.mean():.2f} %"
                f"{several if len(error) > 1 else ''}"
            )


@main.command()
@cfg_option
@config_dir_option
@dry_run_option
@overrides_argument
def study(
    cfg: str | None, config_dir: tuple[str, ...], dry_run: bool, overrides: tuple[str, ...]
) -> None:
    """Run studies: bnstudy study NAME [NAME ...] [overrides]; without a name, list them.

    NAME is a study, a group of them, or all.
    """
    from bnstudy.cli import reconcile

    names = [o for o in overrides if "=" not in o]
    rest = [o for o in overrides if "=" in o]
    with session(config_dir) as composer:
        if not names:
            list_studies(composer)
            return
        studies = composer.studies(names)
        requests = [composer.request(rest, study=s) for s in studies]
        for request in requests:
            if cfg:
                print_config(request, cfg)
                continue
            if len(requests) > 1:
                click.secho(f"study {request.study.name}", bold=True)
            plan = reconcile.train_missing(request, composer, dry_run)
            if plan is not None:
                reconcile.finish_study(request, plan)


@main.command()
@cfg_option
@config_dir_option
@dry_run_option
@click.option("--metric", default="test_error", show_default=True, help="Column of the table.")
@overrides_argument
def compare(
    cfg: str | None,
    config_dir: tuple[str, ...],
    dry_run: bool,
    metric: str,
    overrides: tuple[str, ...],
) -> None:
    """Compare arms: bnstudy compare norm=batch,group train.batch_size=2,32."""
    from bnstudy.cli import reconcile

    with session(config_dir) as composer:
        request = composer.request(overrides)
        if not request.axes:
            raise UserError("nothing to compare: give a comma list, such as norm=batch,group")
        if cfg:
            print_config(request, cfg)
            return
        plan = reconcile.train_missing(request, composer, dry_run)
        if plan is None:
            return
        from rich.console import Console

        from bnstudy import compare as comparison
        from bnstudy.atomic import write_atomically

        table = reconcile.store_of(request).table(plan.addresses)
        # arms are called what the command line calls them: norm=mine, model.hidden=[8]
        axes: dict[str, list[Any]] = {}
        for key, _ in request.axes:
            named = {
                cell.cell: label(point[key])
                for cell, point in zip(plan.cells, request.points, strict=True)
            }
            if any(isinstance(value, str) for value in named.values()):
                named = {cell: str(value) for cell, value in named.items()}  # one type a column
            table[key] = table["cell"].map(named)
            axes[key] = list(dict.fromkeys(named.values()))
        result = comparison.compare(table, axes, metric)
        Console().print(comparison.to_rich(result))
        folder = reconcile.runs_of(request) / "compare" / plan.grid_hash
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(folder / "table.csv", comparison.to_csv(result))
        write_atomically(folder / "table.md", comparison.to_markdown(result))
        click.echo(f"{folder}/table.csv\n{folder}/table.md")


@main.command()
@overrides_argument
def report(overrides: tuple[str, ...]) -> None:
    """Write one self-contained HTML page of all studies that have results."""
    from bnstudy import report as page
    from bnstudy.atomic import write_atomically

    results = results_dir(overrides)
    path = results / "runs" / "report.html"
    found = page.collect(results / "runs" / "studies")
    writable(results)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, page.render(found))
    click.echo(f"{len(found)} stud{'y' if len(found) == 1 else 'ies'}: {path}")


@main.command("ls")
@overrides_argument
def list_cells(overrides: tuple[str, ...]) -> None:
    """List what the store holds, a line for each cell."""
    store = open_store(overrides)
    table = store.table()
    if table.empty:
        click.echo("the store is empty; bnstudy study batch_size fills it")
        return
    from bnstudy.config import RESULTS_VERSION

    named = ["data.name", "model.name", "norm.name", "train.batch_size"]
    for _, alike in table.groupby(named):
        # what tells cells of one name apart
        own = [
            column
            for column in map(str, alike)
            if "." in column and alike[column].astype(str).nunique(dropna=False) > 1
        ]
        for cell, rows in alike.groupby("cell"):
            first = rows.iloc[0]
            stale = "" if first["results_version"] == RESULTS_VERSION else "  stale"
            apart = "".join(
                f"  {column}={value:g}" if isinstance(value, float) else f"  {column}={value}"
                for column in own
                if (value := first[column]) is not None and value == value  # not NaN: unset
            )
            seeds = count(len(rows), "seed")
            click.echo(
                f"{cell}  {first['data.name']:<16} {first['model.name']:<9} "
                f"{first['norm.name']:<9} B={first['train.batch_size']:<4} {seeds:>8}"
                f"  test error {100 * rows['test_error'].mean():6.2f} %{stale}{apart}"
            )
    click.echo(f"{count(table['cell'].nunique(), 'cell')}, {count(len(table), 'run')}")


@main.command()
@click.argument("address")
@overrides_argument
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


@main.command()
@click.argument("address", required=False)
@click.option("--stale", is_flag=True, help="All records made under an older RESULTS_VERSION.")
@overrides_argument
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


@main.command()
@click.option("--csv", "csv", metavar="FILE", help="Write the table as CSV; - is the screen.")
@click.option("--parquet", metavar="FILE", help="Write the table as Parquet.")
@overrides_argument
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


@main.command()
@overrides_argument
def doctor(overrides: tuple[str, ...]) -> None:
    """Say what this machine has: device, threads, compiler, results folder, data, W&B."""
    from bnstudy.doctor import findings

    for name, value in findings(results_dir(overrides)):
        click.echo(f"{name:<16} {value}")


@main.command()
@click.argument("shell", type=click.Choice(["bash", "zsh"]))
def completion(shell: str) -> None:
    """Print the completion script: eval "$(bnstudy completion bash)"."""
    from click.shell_completion import get_completion_class

    found = get_completion_class(shell)
    assert found is not None  # click.Choice allows only shells that click knows
    click.echo(found(main, {}, "bnstudy", "_BNSTUDY_COMPLETE").source())


for command in tools.commands:
    main.add_command(command)


# --- what the commands share --------------------------------------------------------------------


@contextmanager
def session(config_dir: tuple[str, ...]) -> Iterator["Composer"]:
    """A Hydra session for the project's configs and the user's."""
    from bnstudy.config.compose import hydra_session

    with hydra_session(config_dir) as composer:
        yield composer


def print_config(request: "Request", what: str) -> None:
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


def list_studies(composer: "Composer") -> None:
    """Name, claim, source and cost of every study."""
    for name in composer.choices("study"):
        found = composer.study(name)
        click.secho(f"{name}  ({found.group})" if found.group else name, bold=True)
        click.echo(f"  claim   {found.claim}\n  source  {found.source}\n  cost    {found.cost}")


def label(value: Any) -> Any:
    """A value of an axis as a table shows it: lists and null as text."""
    import json

    return value if isinstance(value, str | int | float) else json.dumps(value)
