"""Several stacks all or none, and what killed processes leave behind.

In tmp/ lie stacks that are being written or thrown away. Before several finished ones are moved to
their places, a journal says which go where: after a kill in between, whoever next uses the store
moves the rest.
"""

import contextlib
import os
import shutil
import socket
import time
import uuid
from collections.abc import Callable
from pathlib import Path

from pydantic_core import from_json, to_json

from bnstudy.atomic import make_folder, rename, write_atomically
from bnstudy.store.stack import Damage, content_of

Move = tuple[Path, Path]
"""A finished stack in tmp/, and its place."""

JOURNAL = ".journal"
_DAY = 86_400


class Tmp:
    """The folder tmp/ of a store."""

    def __init__(self, root: Path) -> None:
        """`root` is the store's; nothing is written yet."""
        self.root, self.folder = root, root / "tmp"

    def fresh(self) -> Path:
        """A new path that says which process uses it."""
        make_folder(self.folder)
        return self.folder / f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:8]}"

    def note(self, moves: list[Move]) -> Path:
        """Write the journal of these moves; to be deleted when all are done."""
        lines = [[aside.name, str(target.relative_to(self.root))] for aside, target in moves]
        journal = self.fresh().with_suffix(JOURNAL)
        write_atomically(journal, to_json(lines))
        return journal

    def throw_away(self, path: Path) -> None:
        """Remove a stack at once as others see it: it is renamed first."""
        aside = self.fresh()
        with contextlib.suppress(FileNotFoundError):
            rename(path, aside)
        shutil.rmtree(aside, ignore_errors=True)

    def sweep(self, move: Callable[[Path, Path], None], say: Callable[[str], None]) -> None:
        """Finish the journals of dead processes with `move`, then remove what else they left.

        A process of another host counts as dead when what it left is a day old. What is damaged of
        it is named to `say` and removed; where it cannot be removed, it stays.
        """
        try:
            left = list(self.folder.iterdir())
        except OSError:  # not there yet, or not for this user to tidy
            return
        for path in sorted(left, key=lambda p: p.suffix != JOURNAL):  # journals first
            if not _abandoned(path):
                continue
            if path.suffix == JOURNAL:
                try:
                    self._finish(path, move)
                except Damage as error:
                    say(f"damaged: {path}: {error}. What it names counts as missing.")
                except OSError as error:  # a full or read-only disk: whoever comes next finishes it
                    say(f"the moves in {path} could not be finished: {error.strerror}")
                    return
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path, ignore_errors=True)
            else:
                with contextlib.suppress(OSError):
                    path.unlink()

    def _finish(self, journal: Path, move: Callable[[Path, Path], None]) -> None:
        """Do what is left of a journal's moves; done twice, or by two, it changes nothing.

        Raises Damage for a journal, or a stack it names, that cannot be understood.
        """
        try:
            moves = self._moves(content_of(str(journal)))
        except FileNotFoundError:  # another process has finished it
            return
        for aside, target in moves:
            # another process may be finishing it: what it has moved is no longer there
            with contextlib.suppress(FileNotFoundError):
                move(aside, target)

    def _moves(self, journal: bytes) -> list[Move]:
        """What a journal says. Raises Damage for anything but moves from tmp/ to cells/."""
        try:
            moves = [(str(name), Path(str(target))) for name, target in from_json(journal)]
        except (ValueError, TypeError) as error:
            raise Damage("it cannot be understood") from error
        for name, target in moves:
            if "/" in name or len(target.parts) != 3 or target.parts[0] != "cells":
                raise Damage(f"it moves {name} to {target}")
        return [(self.folder / name, self.root / target) for name, target in moves]


def _abandoned(path: Path) -> bool:
    """Whether nobody will go on with what lies there."""
    name = path.name.removeprefix(".")  # of a journal that is being written
    host, pid, _ = name.rsplit("-", 2) if name.count("-") >= 2 else ("", "", "")
    try:
        old = time.time() - path.lstat().st_mtime > _DAY
    except FileNotFoundError:
        return False
    return old or (host == socket.gethostname() and not _alive(pid))


def _alive(pid: str) -> bool:
    """Whether a process of this host is running."""
    try:
        os.kill(int(pid), 0)
    except PermissionError:
        return True  # someone else's
    except (ProcessLookupError, ValueError):
        return False
    return True
