"""What this machine can be told, and what it says of the code that it runs."""

import os
import subprocess
from functools import cache
from pathlib import Path
from typing import Any


def keep_memory() -> bool:
    """Let glibc keep freed memory instead of giving it back; whether it could be asked.

    Training frees and asks for the same tensors at every step; given back and fetched again they
    cost page faults, up to a quarter of the time at some MiB.
    """
    import ctypes

    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):  # another C library
        return False
    trim, pad, mmaps = -1, -2, -4  # M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX of malloc.h
    return bool(mallopt(mmaps, 0) and mallopt(trim, 2**31 - 1) and mallopt(pad, 2**28))


def memory() -> int:
    """Bytes of this machine's memory; where it does not say, more than any machine has."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):
        return 2**63


@cache
def git_state() -> dict[str, Any]:
    """Commit of the code that runs, and whether the tree differs from it; empty when unknown."""

    def git(*words: str) -> str:
        done = subprocess.run(
            ["git", "-C", str(Path(__file__).parent), *words],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        return done.stdout.strip() if done.returncode == 0 else ""

    try:
        tracked = git("ls-files", "--error-unmatch", "__init__.py")
        if not tracked:  # installed into somebody else's repository, or none
            return {"commit": "", "dirty": None}
        return {"commit": git("rev-parse", "HEAD"), "dirty": bool(git("status", "--porcelain"))}
    except OSError:
        return {"commit": "", "dirty": None}
