"""The environment variables of W&B that people set: heeded, or named."""

import contextlib
import os
from collections.abc import Collection, Iterator
from pathlib import Path

from bnstudy.config import TrackerConfig
from bnstudy.errors import UserError, unknown

MODES = {"offline": "offline", "dryrun": "offline", "online": "online", "run": "online",
         "disabled": "disabled"}  # fmt: skip
# variable -> setting; a setting on the command line goes first
SETTINGS = {"WANDB_MODE": "mode", "WANDB_PROJECT": "project", "WANDB_ENTITY": "entity"}
SWITCH = "WANDB_DISABLED"
# they say of one run what here every cell has of its own
UNUSED = ("WANDB_RUN_ID", "WANDB_NAME", "WANDB_NOTES", "WANDB_TAGS", "WANDB_RUN_GROUP",
          "WANDB_JOB_TYPE", "WANDB_RESUME", "WANDB_SWEEP_ID")  # fmt: skip


def heeded(settings: TrackerConfig, given: Collection[str]) -> TrackerConfig:
    """Settings, filled in by WANDB_MODE, WANDB_DISABLED, WANDB_PROJECT and WANDB_ENTITY.

    Args:
        given: dotted keys that the command line sets; they stay.

    Raises:
        UserError: a WANDB_MODE that W&B, or this package, does not have.
    """
    found = {}
    for variable, name in SETTINGS.items():
        value = os.environ.get(variable, "")
        if value and f"tracker.{name}" not in given:
            found[name] = value
    if "mode" in found:
        if found["mode"] not in MODES:
            said = unknown("mode", found["mode"], MODES)
            raise UserError(f"the environment variable WANDB_MODE: {said}")
        found["mode"] = MODES[found["mode"]]
    disabled = os.environ.get(SWITCH, "").lower() in ("1", "true", "yes", "on")
    if disabled and "tracker.mode" not in given:
        found["mode"] = "disabled"
    return settings.model_copy(update=found)


def named() -> str:
    """What to say of variables that are set and not used; empty when there are none."""
    found = [name for name in UNUSED if os.environ.get(name)]
    if not found:
        return ""
    return (
        f"W&B: {', '.join(found)} {'is' if len(found) == 1 else 'are'} not used: every cell is a "
        "run with an id, a name and tags of its own"
    )


def folder(results: Path | str) -> Path:
    """Where W&B's files go: $WANDB_DIR, or the folder `wandb` of the results."""
    return Path(os.environ.get("WANDB_DIR") or Path(results) / "wandb").expanduser().absolute()


@contextlib.contextmanager
def unset(names: Collection[str]) -> Iterator[None]:
    """Without these environment variables within the block."""
    before = {name: os.environ.pop(name) for name in names if name in os.environ}
    try:
        yield
    finally:
        os.environ.update(before)
