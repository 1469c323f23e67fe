"""A worker that trains nothing: it says who it is, and does what its pack's command says."""

import json
import os
import signal
import sys
import time
from pathlib import Path

from bnstudy.sweep.protocol import Pack

IMPORTED_BY = os.getpid()


def run_pack(path: str) -> None:
    pack = Pack.read(path)
    said = {"pid": os.getpid(), "parent": os.getppid(), "imported_by": IMPORTED_BY}
    Path(pack.folder, f"said-{pack.index}.json").write_text(json.dumps(said))
    if pack.execution.command == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    elif pack.execution.command == "raise":
        print("a worker that raises", file=sys.stderr)
        raise RuntimeError("boom")
    elif pack.execution.command == "wait":
        time.sleep(0.5)
