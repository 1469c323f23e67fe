"""Stacks that raised: a file each below runs/failures, until they have trained after all."""

import contextlib
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bnstudy.atomic import make_folder, write_json
from bnstudy.config import digest
from bnstudy.machine import git_state
from bnstudy.sweep.protocol import StackPlan


class Failures:
    """The failures noted in one results folder.

    A failure stands for the same networks and the same commit: other code may not fail.
    """

    def __init__(self, runs: Path) -> None:
        """`runs` is the folder of the store."""
        self.folder = runs / "failures"

    def note(self, plan: StackPlan, error: str, command: str) -> None:
        """A stack raised; `error` is what people are told, with the traceback where it is ours."""
        about = {"label": plan.label, "addresses": plan.addresses, "error": error,
                 "command": command, "git_commit": git_state()["commit"],
                 "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())}  # fmt: skip
        with contextlib.suppress(OSError):  # of a full disk: the stack is then only missing
            make_folder(self.folder)
            write_json(self.path(plan), about)

    def forget(self, plan: StackPlan) -> None:
        """A stack has trained."""
        with contextlib.suppress(OSError):
            self.path(plan).unlink()

    def of(self, stacks: Sequence[StackPlan]) -> dict[str, str]:
        """Of these stacks, those that failed before: name -> error. A damaged note is none."""
        found = {}
        for plan in stacks if self.folder.is_dir() else ():
            about = _read(self.path(plan))
            if about.get("git_commit", None) == git_state()["commit"]:
                found[plan.name] = str(about.get("error"))
        return found

    def path(self, plan: StackPlan) -> Path:
        """Where the failure of a stack is noted."""
        return self.folder / f"{digest(plan.addresses)}.json"


def _read(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text()) if path.is_file() else {}
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
