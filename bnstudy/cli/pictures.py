"""Images that trained networks make: the command `bnstudy pictures`."""

import json
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bnstudy.cli.places import writable
from bnstudy.cli.select import select
from bnstudy.cli.tools import weights_of
from bnstudy.errors import UserError, count

if TYPE_CHECKING:
    from bnstudy.store import Store

MOST = 8  # networks side by side
STEM = "pictures"


@click.command()
@click.argument("words", nargs=-1, required=True)
@click.option("--folder", default=".", show_default=True, help="Where the pictures go.")
def pictures(words: tuple[str, ...], folder: str) -> None:
    """Draw what trained networks make of a test photograph, side by side.

    WORDS are a study and overrides, or columns of the store: bnstudy pictures stylization
    train.batch_size=4. The first seed of each cell is shown, the photograph is chosen by a rule
    that the caption states. Weights that were not kept are trained again.
    """
    from bnstudy import figures
    from bnstudy.figures.pictures import sheet

    found = select(words)
    table = found.table.sort_values("seed", kind="stable").drop_duplicates("cell")
    if not 0 < len(table) <= MOST:
        raise UserError(
            f"{shlex.join(words)}: {count(len(table), 'cell')} in the store; pictures show 1 to "
            f"{MOST}: filter them, for example by train.batch_size=4"
        )
    place = Path(folder)
    writable(place)
    rows, caption = _rows([found.store.get(a) for a in table["address"]], found.store)
    paths = figures.save(sheet(rows), place, STEM)
    command = f"bnstudy pictures {shlex.join(words)}"
    (place / f"{STEM}.json").write_text(
        json.dumps({"caption": f"{caption} Made by: {command}"}, indent=1) + "\n"
    )
    click.echo(caption)
    click.echo("\n".join(map(str, paths)))


def _rows(records: list[dict[str, Any]], store: "Store") -> tuple[list[list[Any]], str]:
    """Outputs of all networks, then, for each norm of stylization, one crop in two batches."""
    from bnstudy import data
    from bnstudy.config import Config
    from bnstudy.figures import STYLES
    from bnstudy.work import pictures as shown

    configs = [Config.model_validate(record["config"]) for record in records]
    for config in configs:
        if config.data.name != "photos":
            raise UserError(
                f"data={config.data.name}: pictures show what networks make of data=photos"
            )
    if len({config.data for config in configs}) > 1 or len({c.task for c in configs}) > 1:
        raise UserError("pictures stand side by side of one task and one kind of data: filter them")
    photographs = data.load(configs[0].data, store.root / "cache")
    order = list(STYLES)
    pairs = sorted(
        zip(configs, records, strict=True),
        key=lambda pair: (order.index(pair[0].norm.name), pair[0].train.batch_size),
    )
    several = len({c.norm.name for c in configs}) < len(configs)
    arms = []
    for config, record in pairs:
        name = STYLES[config.norm.name].label
        name += f", batch of {config.train.batch_size}" * several
        arms.append(shown.arm(name, config, weights_of(record, store, []), photographs))
    outputs, caption = shown.outputs(arms, photographs)
    beside = [
        shown.companions(own, photographs)
        for own in arms
        if own.config.task.name == "stylization" and own.config.norm.name in ("batch", "instance")
        and own.config.train.batch_size > 1
    ]  # fmt: skip
    if beside:
        caption += " " + shown.EXCHANGED
    seeds = sorted({record["seed"] for record in records})
    return [outputs, *beside], f"{caption} Seed {', '.join(map(str, seeds))}."
