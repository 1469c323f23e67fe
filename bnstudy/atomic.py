"""Files that appear whole or not at all."""

import json
import os
import uuid
from pathlib import Path
from typing import Any


def write_atomically(path: Path, text: str) -> None:
    """Write a file so that a reader sees the old or the new text, never a part."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{uuid.uuid4().hex[:8]}")
    temporary.write_text(text)
    os.replace(temporary, path)


def write_json(path: Path, value: Any) -> None:
    """`write_atomically` of sorted, indented JSON."""
    write_atomically(path, json.dumps(value, indent=2, sort_keys=True) + "\n")
