"""The W&B run of a study, made when its results are written, and what is printed about it."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from bnstudy import tracking
from bnstudy.cli.apart import Apart

if TYPE_CHECKING:
    from bnstudy.config import TrackerConfig
    from bnstudy.config.compose import Request
    from bnstudy.sweep.launch import Outcome


def settings_of(request: "Request") -> "TrackerConfig":
    """The tracker's settings, filled in by W&B's environment variables.

    Raises:
        UserError: a WANDB_MODE that does not exist.
    """
    return tracking.heeded(request.settings.tracker, request.by_hand)


def unused(request: "Request") -> None:
    """Name W&B's environment variables that are set and not used."""
    if settings_of(request).mode != "disabled" and (said := tracking.named()):
        click.echo(said, err=True)


def heed(outcome: "Outcome") -> None:
    """What a worker found out of W&B: a dead server would cost its timeout again."""
    if outcome.tracker.startswith(tracking.FAILED):
        tracking.failed(outcome.tracker.removeprefix(tracking.FAILED))
    elif outcome.tracker.startswith(tracking.KEPT):
        tracking.lose(outcome.tracker.removeprefix(tracking.KEPT))


def study(request: "Request", results: Path) -> None:
    """Make the W&B run of a study's results where there is none yet, and print its status.

    Args:
        results: folder of the results.
    """
    from bnstudy.studies.results import STAMP

    stamp = results / STAMP
    status = tracking.mirror_study(
        settings_of(request),
        tracking.folder(request.settings.results_dir),
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
