"""The W&B run of a study, made when its results are written, and what is printed about it."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from bnstudy import tracking
from bnstudy.cli.apart import Apart

if TYPE_CHECKING:
    from bnstudy.config.compose import Request
    from bnstudy.sweep.launch import Outcome


def heed(outcome: "Outcome") -> None:
    """Leave W&B alone after it failed in a worker: a dead server would cost its timeout again."""
    if outcome.tracker.startswith(tracking.FAILED):
        tracking.failed(outcome.tracker.removeprefix(tracking.FAILED))


def study(request: "Request", results: Path) -> None:
    """Make the W&B run of a study's results where there is none yet, and print its status.

    Args:
        results: folder of the results.
    """
    from bnstudy.studies.results import STAMP

    settings, stamp = request.settings, results / STAMP
    status = tracking.mirror_study(
        settings.tracker,
        Path(settings.results_dir) / "wandb",
        results,
        stamp.read_text() if stamp.is_file() else "",
        lambda *call: Apart(*call).result(),  # W&B starts threads, and workers are forked from here
    )
    if status.startswith(tracking.FAILED):
        click.echo(
            f"W&B {status}. The results are complete; tracker.mode=disabled leaves it out.",
            err=True,
        )
    elif status != "disabled":
        click.echo(f"W&B {status}")
