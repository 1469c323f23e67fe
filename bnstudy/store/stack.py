"""One stack on disk: the runs of a cell that were trained together, in a folder with a manifest.

<address>.json    a record per seed
history.parquet   seed, step, epoch, examples, and a column per metric
weights.pt        where they were asked for
manifest.json     bytes and sha256 of each of these; what it does not list is not there
"""

import hashlib
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic_core import from_json

from bnstudy.atomic import json_text, sync
from bnstudy.store.schema import Record, encode

MANIFEST, HISTORY, WEIGHTS = "manifest.json", "history.parquet", "weights.pt"


class Damage(Exception):
    """What is wrong with a stack."""


def stack_id(addresses: Iterable[str]) -> str:
    """The name of the stack of these runs, in whatever order."""
    return hashlib.sha256("\n".join(sorted(addresses)).encode()).hexdigest()[:12]


@dataclass(frozen=True)
class Stack:
    """A stack as its manifest describes it."""

    path: Path
    results_version: int
    files: dict[str, tuple[int, str]]  # name -> bytes, sha256

    @property
    def addresses(self) -> list[str]:
        """Of its runs, sorted."""
        return sorted(name.removesuffix(".json") for name in self.files if name.endswith(".json"))

    def check_lengths(self) -> None:
        """Look whether every file is there. Raises Damage, FileNotFoundError."""
        for name, (size, _) in self.files.items():
            if os.stat(f"{self.path}/{name}").st_size != size:
                raise Damage(f"{name} does not have the {size} bytes it was written with")

    def read(self, names: list[str]) -> list[bytes]:
        """Whole files after comparing their sha256. Raises Damage, FileNotFoundError."""
        contents = []
        for name in names:
            with open(f"{self.path}/{name}", "rb") as file:
                contents.append(file.read())
            if hashlib.sha256(contents[-1]).hexdigest() != self.files[name][1]:
                raise Damage(f"{name} does not have the content it was written with")
        return contents

    def manifest(self) -> str:
        """The text of its manifest."""
        content = {"results_version": self.results_version, "files": self.files}
        return json_text(content, "null", indent=1)


def read_stack(path: Path) -> Stack:
    """A stack by its manifest alone. Raises Damage, FileNotFoundError, NotADirectoryError."""
    with open(f"{path}/{MANIFEST}", "rb") as file:
        text = file.read()
    try:
        content = from_json(text)
        files = {name: (size, sha) for name, (size, sha) in content["files"].items()}
        return Stack(path, content["results_version"], files)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise Damage(f"{MANIFEST} cannot be understood") from error


def write_stack(
    path: Path,
    records: list[Record],
    history: list[dict[str, Any]],
    write_weights: Callable[[Path], None] | None,
) -> None:
    """A new folder with all of a stack, which is on the disk when this returns."""
    name = stack_id(record["address"] for record in records)
    (version,) = {record["results_version"] for record in records}
    path.mkdir()
    for record in records:
        noted = {**record, "stack": {**record["stack"], "id": name}}
        (path / f"{record['address']}.json").write_bytes(encode(noted).encode())
    write_history(history, path / HISTORY)
    if write_weights is not None:
        write_weights(path / WEIGHTS)
    files = {p.name: (p.stat().st_size, sha256(p)) for p in sorted(path.iterdir())}
    (path / MANIFEST).write_bytes(Stack(path, version, files).manifest().encode())
    sync(path)


def write_history(rows: list[dict[str, Any]], path: Path) -> None:
    """Numbers as Parquet, a column for each key; what a row lacks is null there."""
    import pyarrow as pa
    from pyarrow import parquet

    names = dict.fromkeys(name for row in rows for name in row)
    table = pa.table({name: _column([row.get(name) for row in rows]) for name in names})
    parquet.write_table(table, path)


def _column(values: list[Any]) -> Any:
    """Whole numbers, other numbers or nothing as an Arrow array.

    From buffers, because `pyarrow.array` imports pandas, which takes a worker longer than to train
    a small network.
    """
    import numpy as np
    import pyarrow as pa

    there = np.array([value is not None for value in values])
    if not there.any():
        return pa.nulls(len(values))
    whole = all(value is None or isinstance(value, int) for value in values)
    kind = (pa.int64(), np.int64) if whole else (pa.float64(), np.float64)
    numbers = np.array([0 if value is None else value for value in values], dtype=kind[1])
    valid = None if there.all() else pa.py_buffer(np.packbits(there, bitorder="little").tobytes())
    return pa.Array.from_buffers(kind[0], len(values), [valid, pa.py_buffer(numbers.tobytes())])


def sha256(path: Path) -> str:
    """Of a file's content, read in blocks."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
