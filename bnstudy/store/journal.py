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

    def sweep(self, move: Callable[[Path, Path], None]) -> None:
        """Finish the journals of dead processes with `move`, then remove what else they left.

        A process of another host counts as dead when what it left is a day old.
        """
        left = list(self.folder.iterdir()) if self.folder.is_dir() else []
        for path in sorted(left, key=lambda p: p.suffix != JOURNAL):  # journals first
            if not _abandoned(path):
                continue
            if path.suffix == JOURNAL:
                self._finish(path, move)
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                with contextlib.suppress(OSError):
                    path.unlink()

    def _finish(self, journal: Path, move: Callable[[Path, Path], None]) -> None:
        """Do what is left of a journal's moves; done twice, or by two, it changes nothing."""
        with contextlib.suppress(FileNotFoundError):  # another process has finished it
            for name, target in from_json(journal.read_bytes()):
                # another process may be finishing it: what it has moved is no longer there
                with contextlib.suppress(FileNotFoundError):
                    move(self.folder / name, self.root / target)


def _abandoned(path: Path) -> bool:
    """Whether nobody will go on with what lies there."""
    name = path.name.removeprefix(".")  # of a journal that is being written
    host, pid, _ = name.rsplit("-", 2) if name.count("-") >= 2 else ("", "", "")
    try:
        old = time.time() - path.stat().st_mtime > _DAY
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
