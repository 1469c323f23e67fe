"""Where things lie: the results folder of a command, and the store in it."""

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from bnstudy.errors import UserError

if TYPE_CHECKING:
    from bnstudy.store import Store


def results_dir(overrides: Sequence[str]) -> Path:
    """The results folder of a command that composes nothing.

    Raises:
        UserError: another override than results_dir.
    """
    found = "results"
    for text in overrides:
        key, _, value = text.partition("=")
        if key != "results_dir":
            raise UserError(f"'{text}': this command takes no overrides but results_dir=DIR")
        found = value
    return Path(found)


def open_store(overrides: Sequence[str]) -> "Store":
    """The store of a command that composes nothing."""
    from bnstudy.store import Store

    return Store(results_dir(overrides) / "runs")


def writable(results: Path) -> None:
    """Make a results folder and see that it can be written, before anything is computed.

    Raises:
        UserError: it cannot.
    """
    try:
        results.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=results):
            pass
    except OSError as error:
        raise UserError(
            f"the results folder '{results}' cannot be written ({error.strerror}): "
            "choose another with results_dir=DIR"
        ) from None
