"""`bnstudy watch`: the sweeps that run in a results folder, seen from anywhere."""

import contextlib
import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from bnstudy.cli.places import open_store

if TYPE_CHECKING:
    from bnstudy.sweep.progress import Sweep

PICTURE_EVERY, LINES_EVERY = 2, 15  # seconds: on a terminal, and where there is none
QUEUE_EVERY = 10  # seconds between two questions to a cluster


@click.command()
@click.option("--once", is_flag=True, help="Print how it is now and stop.")
@click.argument("overrides", nargs=-1, type=click.UNPROCESSED)
def watch(overrides: tuple[str, ...], once: bool) -> None:
    """Show the sweeps that run in a results folder: bnstudy watch [results_dir=DIR].

    From any terminal, and any machine that shares the folder; until none is running. It only
    looks: Ctrl-C ends the watching, not the sweep.
    """
    runs = open_store(overrides).root
    if once or not sys.stdout.isatty():
        while found := running(runs):
            click.echo("\n".join(text(runs, now) for now in found))
            if once:
                return
            time.sleep(LINES_EVERY)
    else:
        from rich.live import Live
        from rich.text import Text

        with Live(auto_refresh=False, transient=True) as picture:
            while found := running(runs):
                picture.update(Text("\n".join(text(runs, now) for now in found)), refresh=True)
                time.sleep(PICTURE_EVERY)
    click.echo(over(runs))


def running(runs: Path) -> "list[Sweep]":
    """The sweeps that somebody works on, or that are queued."""
    from bnstudy.sweep.progress import sweep, sweeps
    from bnstudy.sweep.protocol import Launch

    going = []
    for folders in sweeps(runs / "launches").values():
        launches = {f: la for f in folders if (la := Launch.read(f)) and la.ended is None}
        if launches:
            _refresh([f for f, la in launches.items() if la.jobs])
            going.append(sweep(folders))
    return [now for now in going if now.alive]


def _refresh(folders: list[Path]) -> None:
    """Ask the cluster about jobs, where that was not done just now; by others too."""
    from bnstudy.sweep import slurm
    from bnstudy.sweep.protocol import Launch

    old = [f for f in folders if time.time() - Launch.path(f).stat().st_mtime > QUEUE_EVERY]
    with contextlib.suppress(slurm.NoAnswer):  # no cluster here: what was last noted must do
        slurm.look(old)


def text(runs: Path, now: "Sweep") -> str:
    """A sweep in a few lines."""
    from bnstudy.cli.watch import queue
    from bnstudy.sweep.progress import remaining
    from bnstudy.sweep.protocol import State

    last = now.last
    states = {"done": State.DONE, "running": State.RUNNING, "failed": State.FAILED,
              "died": State.DIED, "queued": State.PLANNED}  # fmt: skip
    said = ", ".join(f"{now.models[state]} {word}" for word, state in states.items())
    rate = "" if now.rate is None else f"{now.rate:.1f} models a minute, "
    since = time.strftime("%Y-%m-%d %H:%M", time.localtime(now.launches[0].begun))
    head = " ".join(filter(None, [last.study or "train", last.scale]))
    lines = [
        f"{head}, {last.launcher} of {last.host} since {since}: {last.command}",
        f"  models   {said} of {sum(now.models.values())}",
        f"  pace     {rate}{100 * now.fraction:.0f} %, {remaining(now.fraction, now.left)}",
    ]
    lines += [f"  now      {doing}" for doing in now.doing]
    lines += [f"  queue    {line}" for line in queue(now)]
    if found := verdict(runs, last.study, last.scale):
        lines.append(f"  verdict  {found}")
    return "\n".join(lines)


def verdict(runs: Path, study: str, scale: str) -> str:
    """The primary claim's last verdict of a study at a scale; empty where there is none yet."""
    files = (runs / "studies" / study).glob(f"{scale}-*/claims.json") if study else []
    for path in sorted(files, key=lambda p: -p.stat().st_mtime):
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            claims = json.loads(path.read_text())
            primary = next(c for c in claims if c["primary"])
            when = time.strftime("%Y-%m-%d %H:%M", time.localtime(path.stat().st_mtime))
            return f"{primary['verdict']} ({when}): {primary['text']}"
    return ""


def over(runs: Path) -> str:
    """What is said when no sweep runs: how the last one ended."""
    from bnstudy.sweep.progress import sweep, sweeps

    found = list(sweeps(runs / "launches").values())
    if not found:
        return f"no sweep runs, or has run, in {runs.parent}"
    last = sweep(found[-1])
    counts = ", ".join(f"{n} {state}" for state, n in last.models.items())
    return (
        f"no sweep runs in {runs.parent}; the last one, {last.last.command}, ended with {counts} "
        f"of {sum(last.models.values())} models"
    )
