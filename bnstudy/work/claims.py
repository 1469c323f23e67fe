"""Which stacks somebody is training right now, so that commands on one results folder share them.

A claim is a lock on one byte of the file runs/claims; the byte's place is made from the stack's
name. The system keeps it, not a file's content: it ends with the process that holds it, however
that ends, so nothing expires and nothing is left behind. Where the file system has no locks
everybody may train everything, and the store keeps what comes first.
"""

import errno
import os
from pathlib import Path
from types import ModuleType

fcntl: ModuleType | None
try:
    import fcntl
except ImportError:  # Windows
    fcntl = None


class Claims:
    """The claims of this process; one at a time for each results folder.

    A context manager: at its end all that it holds is given back.
    """

    def __init__(self, runs: Path) -> None:
        """`runs` is the folder of the store."""
        runs.mkdir(parents=True, exist_ok=True)
        self.file = os.open(runs / "claims", os.O_RDWR | os.O_CREAT, 0o666)

    def take(self, name: str) -> bool:
        """Whether the stack of this name is ours to train: nobody else's who is alive."""
        try:
            self._lock(name, "LOCK_EX", "LOCK_NB")
        except OSError as error:
            return error.errno not in (errno.EACCES, errno.EAGAIN)
        return True

    def give_back(self, name: str) -> None:
        """Let others have a stack."""
        try:
            self._lock(name, "LOCK_UN")
        except OSError:  # no locks here: there was nothing to give back
            return

    def _lock(self, name: str, *how: str) -> None:
        if fcntl is not None:
            flags = sum(getattr(fcntl, word) for word in how)
            fcntl.lockf(self.file, flags, 1, int(name[:15], 16))  # of 64 bits, one is the sign

    def __enter__(self) -> "Claims":
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self.file)
