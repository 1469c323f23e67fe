"""Commands about norms themselves: audit, theory, fold, bench."""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bnstudy.cli.completion import complete_address
from bnstudy.cli.places import open_store, writable
from bnstudy.errors import UserError, unknown

if TYPE_CHECKING:
    from bnstudy.config import Config
    from bnstudy.store import Record, Store


@click.command()
@click.argument("target", metavar="PACKAGE.MODULE:NAME")
@click.option("--init", metavar="ARGS", help="How the class is made: 'num_features=C, num_dims=D'.")
def audit(target: str, init: str | None) -> None:
    """Check a batch normalization (class or function) against the definition.

    Exit code 1 when something is found.
    """
    from bnstudy import entry
    from bnstudy.norms import audit as ask
    from bnstudy.normtools.audit import CHECKS

    try:
        findings = ask(entry.locate(target, "audit"), init)
    except ValueError as error:
        raise UserError(f"audit {target}: {error}") from None
    for finding in findings:
        click.echo(f"{finding}\n")
    if findings:
        click.echo(f"{len(findings)} of {len(CHECKS)} checks found something in {target}")
        sys.exit(1)
    click.echo(f"{target}: nothing found by {len(CHECKS)} checks")


@click.command()
def theory() -> None:
    """Compute what theory says exactly about norms, and compare; no training.

    Exit code 1 when something does not hold.
    """
    from bnstudy.normtools.theory import tables

    held = True
    for table in tables():
        click.echo(f"{table}\n")
        held &= table.holds
    click.echo("everything agrees" if held else "something does not agree")
    if not held:
        sys.exit(1)


@click.command()
@click.option("--run-entries", is_flag=True, help="Run the code of your own that the record names.")
@click.argument("address", shell_complete=complete_address)
@click.argument("overrides", nargs=-1)
def fold(run_entries: bool, address: str, overrides: tuple[str, ...]) -> None:
    """Fold BN into the layers before it, in a trained model: equality and inference speed.

    ADDRESS is that of a run or cell (its first seed), or the beginning of one; overrides:
    results_dir, data.root. Code that a record names (data.entry, model.entry, norm.entry) runs with
    --run-entries only, and only if it is what the run was trained with.
    """
    roots = [o.partition("=")[2] for o in overrides if o.startswith("data.root=")]
    store = open_store([o for o in overrides if not o.startswith("data.root=")])
    record = min((store.get(a) for a in store.runs(address)), key=lambda r: r["seed"])
    config = at_root(config_of(record), roots)
    _allow(config, run_entries)

    import torch

    from bnstudy import data
    from bnstudy.data.photographs import Photographs
    from bnstudy.normtools.fold import fold as folded
    from bnstudy.normtools.fold import inference_speedup
    from bnstudy.work.build import build

    torch.set_num_threads(1)
    dataset = data.load(config.data, store.root / "cache", config.seed)
    net = build(config, tuple(dataset.shape), dataset.num_classes)
    net.load_state_dict(_weights(record, store, roots))
    net.eval()
    if isinstance(dataset, Photographs):
        inputs, each = dataset.tiles("test"), "patches"
    else:
        inputs, each = dataset.test_x, "examples"
    try:
        result = folded(net, inputs[:64])
    except ValueError as error:
        raise UserError(f"fold {address}: {error}") from None
    click.echo(str(result))
    with torch.no_grad():
        before, after = net(inputs), result.model(inputs)
    difference = (before - after).abs().max().item()
    told = f"largest difference {difference:.2g} at outputs up to {before.abs().max().item():.2g}"
    if each == "examples":  # a network of patches returns no classes
        same = (before.argmax(1) == after.argmax(1)).float().mean().item()
        told = f"same class for {100 * same:.2f} %, {told}"
    click.echo(f"all {len(inputs)} test {each}: {told}")
    for size in (1, 64):
        speed = inference_speedup(net, result.model, inputs[:size])
        click.echo(f"inference at batch {size}: {speed:.2f} times as fast (median of 30 pairs)")


def config_of(record: "Record | dict[str, Any]") -> "Config":
    """The config of a record. Raises UserError where it is none of this version's."""
    from bnstudy.config import Config
    from bnstudy.config.overrides import validated

    return validated(Config, record["config"], f"the record {record['address']}")


def _allow(config: "Config", run_entries: bool) -> None:
    """Refuse code that a record names, unless it was asked for and has not changed since."""
    from bnstudy.work.sources import check

    entries = {"data": config.data.entry, "model": config.model.entry, "norm": config.norm.entry}
    named = [f"{key}.entry={entry}" for key, entry in entries.items() if entry]
    if named and not run_entries:
        raise UserError(
            f"the record {config.address} names {' and '.join(named)}, code that folding would "
            f"run from the working directory, {Path.cwd()}: --run-entries runs it"
        )
    if named:
        check(config)


def at_root(config: "Config", roots: list[str]) -> "Config":
    """The config with its data in the given folder, if any."""
    if not roots:
        return config
    data = config.data.model_copy(update={"root": roots[-1]})
    return config.model_copy(update={"data": data})


def _weights(record: "Record", store: "Store", roots: list[str]) -> dict[str, Any]:
    """The final weights of a run: as kept, or from training its whole stack again."""
    import torch

    from bnstudy.sweep.protocol import Execution
    from bnstudy.work.record import summaries
    from bnstudy.work.trainer import Trainer, device

    address, stack = record["address"], record["stack"]
    try:
        return torch.load(store.weights_path(address))[address]
    except UserError:
        click.echo("the weights were not kept: training the same stack again")
    held = store.held()
    mates = [a for a in stack.get("addresses", [address]) if a in held]
    if len(mates) < stack["networks"]:
        click.echo(
            f"{stack['networks'] - len(mates)} of the {stack['networks']} networks that trained "
            "together are not in the store: without them the bits may differ"
        )
    configs = [at_root(config_of(store.get(a)), roots) for a in mates]
    compile = "never" if stack["steps"].startswith("eager") else "always"
    execution = Execution(results_dir=str(store.root.parent), compile=compile, save_weights=True)
    torch.set_deterministic_debug_mode("error")
    trained = Trainer(execution, store.root, device("auto")).train(configs)
    again = summaries(trained)[address]["test_loss"] == record["summary"]["test_loss"]
    click.echo(f"trained again: its test loss is {'the same to the bit' if again else 'not'}")
    return trained.weights[mates.index(address)]


@click.command()
@click.argument("what")
@click.option("--rounds", default=25, show_default=True, help="Timings of each way.")
@click.option("--folder", default="results/bench", show_default=True, help="Where results go.")
@click.option("--adopt", is_flag=True, help="engine: let runs decide by what was measured.")
def bench(what: str, rounds: int, folder: str, adopt: bool) -> None:
    """Measure speed: bnstudy bench norms|engine|recurrent|notebook|start|sweep|report|all."""
    if what not in (*BENCHES, "all"):
        raise unknown("benchmark", what, [*BENCHES, "all"])
    if adopt and what != "engine":
        raise UserError(f"--adopt belongs to `bnstudy bench engine`, not to {what}")
    import importlib

    writable(Path(folder))
    for name in BENCHES if what == "all" else (what,):
        measured = importlib.import_module(f"bnstudy.bench.{name}")
        command = f"bnstudy bench {name} --rounds {rounds}"
        click.secho(name, bold=True)
        for line in measured.run(Path(folder), rounds, command, lambda t: click.echo(t, err=True)):
            click.echo(line)
    if adopt:
        _adopt(Path(folder) / "engine.json")


def _adopt(measured: Path) -> None:
    """Make what was measured the table that runs decide by; other devices' rows stay."""
    from bnstudy.atomic import write_json
    from bnstudy.sweep.cost import TABLE

    new = json.loads(measured.read_text())
    devices = {row["device"] for row in new["costs"]}
    kept = [r for r in json.loads(TABLE.read_text())["rows"] if r["device"] not in devices]
    write_json(TABLE, {"command": new["command"], "machine": new["machine"],
                       "rows": [*kept, *new["costs"]]})  # fmt: skip
    click.echo(f"{TABLE.name} is written: RESULTS_VERSION must rise if its decisions differ")


BENCHES = ("norms", "engine", "recurrent", "notebook", "start", "sweep", "report")
commands = (audit, theory, fold, bench)
