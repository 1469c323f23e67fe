"""What a study was when its first record was trained: verdicts that follow it are confirmatory.

Before anything of a grid is trained, a registration of it is written: hashes of the claims (of what
they compute, not of how they are worded), of the grid and of the tuning choices, the looks, the
commit, and how many of its records were there. A file per grid, a list to which changes are
appended: the first entry counts, and nothing takes it back. The code that judges is hashed, too:
that it was changed is told beside the verdicts, and as it may be a mended fault it does not make
them exploratory.
"""

import contextlib
import errno
import os
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from pydantic import BaseModel, TypeAdapter, ValidationError

from bnstudy.atomic import make_folder, write_json
from bnstudy.config import HERE, digest
from bnstudy.errors import UserError, count
from bnstudy.machine import git_state

fcntl: ModuleType | None
try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

CALLED = {"claims": "the claims", "grid": "the grid", "tuning": "the tuning", "until": "until",
          "looks": "the looks"}  # fmt: skip
FIXED = {*CALLED}  # what must not change for a verdict to be confirmatory
TEXTS = ("name", "text")  # of a claim: what readers see, no part of what is asked
NOW = "%Y-%m-%dT%H:%M:%SZ"  # as records say when they were made: UTC, to the second


class Registration(BaseModel):
    """A study's claims, grid, tuning and looks at one time."""

    study: str
    scale: str
    claims: str  # hash of `form` without TEXTS
    grid: str  # hash of the addresses of all its runs, those of all looks among them
    tuning: str  # hash of the choices of rates and the like; empty: none were made
    until: str
    looks: tuple[int, ...]
    rules: str = ""  # hash of the code that judges (see `rules`); empty: not registered
    form: dict[str, Any]  # the claims' canonical form, with their texts
    command: str
    planned: int  # runs of the grid
    held: int = 0  # of them in the store when this was written
    created: str = ""
    commit: str = ""
    dirty: bool | None = None  # whether the code differed from the commit; None: unknown

    @property
    def fixed(self) -> dict[str, Any]:
        """What is registered, by the names in FIXED."""
        return self.model_dump(include=FIXED)

    @property
    def line(self) -> str:
        """When and of which code, for people."""
        tree = {True: ", with changes", False: ", clean", None: ""}[self.dirty]
        code = f"commit {self.commit[:7]}{tree}" if self.commit else "an unknown commit"
        return f"registered {self.created} at {code}, {self.held} of {self.planned} runs there"


class Standing(NamedTuple):
    """What verdicts may be called, and why; `line` says what was registered."""

    status: str  # confirmatory or exploratory
    reason: str
    line: str = ""


def claims_hash(form: dict[str, Any]) -> str:
    """Hash of a canonical form of claims: names and texts are no part of it."""
    asked = [{k: v for k, v in claim.items() if k not in TEXTS} for claim in form["claims"]]
    return digest({**form, "claims": asked})


def rules() -> str:
    """Hash of the code that judges: tests, levels, which runs failed, preconditions."""
    files = [*sorted((HERE / "stats").glob("*.py")), HERE / "studies" / "kit.py"]
    return digest([[path.name, path.read_text(encoding="utf-8")] for path in files])


def read(path: Path) -> list[Registration]:
    """The registrations of a grid, the first one first; empty when there is none.

    Raises UserError for a damaged file.
    """
    if not os.path.lexists(path):
        return []
    try:
        if not path.is_file():  # opening a pipe would wait for its other end
            raise OSError(errno.EINVAL, "no regular file is there")
        return TypeAdapter(list[Registration]).validate_json(path.read_bytes())
    except ValidationError as error:
        what = count(error.error_count(), "problem")
    except OSError as error:
        what = error.strerror or str(error)
    raise UserError(
        f"{path} is damaged and cannot be read as a registration ({what}): restore it, or remove "
        "it; verdicts of the grid are then exploratory"
    )


def register(path: Path, now: Registration, held: Callable[[], int], training: bool) -> None:
    """Append what is asked now, unless the last entry asks the same.

    Args:
        path: of the grid's file.
        now: its time, commit and records held are filled in.
        held: counts the grid's records in the store; asked while no other command registers.
        training: whether records are about to be trained: only then a first entry is made.
    """
    if not training and not path.exists():
        return
    with _alone(path.parent):
        entries = read(path)
        if entries and entries[-1].fixed == now.fixed:
            return
        state = git_state()
        filled = {
            "held": held(),
            "created": time.strftime(NOW, time.gmtime()),
            "commit": state["commit"],
            "dirty": state["dirty"],
        }
        entries.append(now.model_copy(update=filled))
        write_json(path, [entry.model_dump(mode="json") for entry in entries])


def standing(path: Path, now: Registration, created: Sequence[str]) -> Standing:
    """Whether verdicts are confirmatory.

    Args:
        path: of the grid's file.
        now: what is asked now, registered or not.
        created: when each record behind the verdicts was made.
    """
    entries = read(path)
    if not entries:
        return Standing("exploratory", "there is no registration")
    first = entries[0]
    line = first.line + _rules_changed(first, now)
    # texts of one form: the later is the greater; what begins otherwise (nan) is no time
    older = sum(not (when[:1].isdigit() and when >= first.created) for when in created)
    if first.held:
        reason = f"{first.held} of {count(first.planned, 'run')} were there before the registration"
    elif first.fixed != now.fixed:
        reason = _changed(entries, now)
    elif older:
        reason = f"{older} of {count(len(created), 'record')} are older than the registration"
    else:
        return Standing("confirmatory", "all records follow the registration", line)
    return Standing("exploratory", reason, line)


def _changed(entries: Sequence[Registration], now: Registration) -> str:
    """What was changed after the first registration, and after how many runs."""
    first = entries[0].fixed
    changed = [CALLED[name] for name, value in now.fixed.items() if value != first[name]]
    verb = "was" if changed == [CALLED["tuning"]] or changed == [CALLED["until"]] else "were"
    held = next((e.held for e in entries if e.fixed == now.fixed), now.planned)
    when = f"{held} of {count(now.planned, 'run')} were there" if held else "the registration"
    return f"{' and '.join(changed)} {verb} changed after {when}"


def _rules_changed(first: Registration, now: Registration) -> str:
    """What is said of the code that judges where it may be another than was registered."""
    if not first.rules:
        return "; the code that judges (bnstudy.stats, studies/kit.py) was not registered"
    if first.rules != now.rules:
        return "; judged by other code of bnstudy.stats or studies/kit.py than was registered"
    return ""


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """One process at a time; where the file system has no locks, without."""
    make_folder(folder)
    if fcntl is None:
        yield
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)
