"""Result paths: the results folder of a command, and the store in it."""

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from bnstudy.errors import UserError

if TYPE_CHECKING:
    from bnstudy.store import Store

config_dir_option = click.option(
    "--config-dir", multiple=True, metavar="DIR", help="A folder of configs of your own."
)


def results_dir(overrides: Sequence[str]) -> Path:
    """The results folder of a command that composes nothing.

    Raises:
        UserError: another override than results_dir.
    """
    from bnstudy.config.settings import path_of

    found = "results"
    for text in overrides:
        if text.partition("=")[0] != "results_dir":
            raise UserError(f"'{text}': this command takes no overrides but results_dir=DIR")
        found = path_of(text)
    return Path(found)


def open_store(overrides: Sequence[str]) -> "Store":
    """The store of a command that composes nothing.

    Raises:
        UserError: a results folder that was named and does not exist.
    """
    from bnstudy.store import Store

    folder = results_dir(overrides)
    if overrides and not folder.is_dir():
        raise UserError(f"results_dir={folder}: there is no such folder")
    return Store(folder / "runs")


def writable(results: Path) -> None:
    """Make a results folder and see that it can be written, before anything is computed.

    Raises:
        UserError: it cannot.
    """
    try:
        results.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=results) as file:
            file.write(bytes(4096))  # a full disk still takes an empty file
    except OSError as error:
        raise UserError(
            f"the results folder '{results}' cannot be written ({error.strerror}): "
            "choose another with results_dir=DIR"
        ) from None
