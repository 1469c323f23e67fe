"""A real worker that leaves behind which modules it had at its beginning and at its end."""

import json
import sys
from pathlib import Path

from bnstudy.work import worker


def run_pack(path: str) -> None:
    begin = sorted(sys.modules)
    worker.run_pack(path)
    Path(path).with_suffix(".modules").write_text(json.dumps([begin, sorted(sys.modules)]))
