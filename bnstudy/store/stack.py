"""One stack on disk: the runs of a cell that were trained together, in a folder with a manifest.

<address>.json    a record per seed
history.parquet   seed, step, epoch, examples, and a column per metric
weights.pt        where they were asked for
manifest.json     bytes and sha256 of each of these; what it does not list is not there
"""

import contextlib
import errno
import hashlib
import io
import os
import stat
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic_core import from_json

from bnstudy.atomic import json_text, sync
from bnstudy.store.schema import Record, decode, encode, flaw

if TYPE_CHECKING:
    import pandas as pd

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
            with _named(name):
                found = os.stat(f"{self.path}/{name}")
            if found.st_size != size or not stat.S_ISREG(found.st_mode):
                raise Damage(f"{name} does not have the {size} bytes it was written with")

    def read(self, names: list[str]) -> list[bytes]:
        """Whole files after comparing their sha256. Raises Damage, FileNotFoundError."""
        contents = []
        for name in names:
            contents.append(content_of(f"{self.path}/{name}"))
            if hashlib.sha256(contents[-1]).hexdigest() != self.files[name][1]:
                raise Damage(f"{name} does not have the content it was written with")
        return contents

    def records(self, addresses: list[str]) -> list[Record]:
        """Records of its runs, each whole and its own. Raises Damage, FileNotFoundError."""
        found = []
        names = [f"{address}.json" for address in addresses]
        for name, address, text in zip(names, addresses, self.read(names), strict=True):
            try:
                value = decode(text)
            except ValueError as error:
                raise Damage(f"{name} is not JSON") from error
            if wrong := flaw(value, address, self.path.parent.name):
                raise Damage(f"{name} is no record of its run: {wrong}")
            if value["results_version"] != self.results_version:
                raise Damage(f"{name} and {MANIFEST} name different versions")
            found.append(value)
        return found

    def history(self) -> "pd.DataFrame":
        """The history of all its runs. Raises Damage, FileNotFoundError."""
        import pandas as pd

        (content,) = self.read([HISTORY])
        try:
            rows = pd.read_parquet(io.BytesIO(content))
            return rows.astype({"seed": int})
        except (ValueError, OSError, KeyError) as error:
            raise Damage(f"{HISTORY} cannot be understood") from error

    def manifest(self) -> str:
        """The text of its manifest."""
        content = {"results_version": self.results_version, "files": self.files}
        return json_text(content, "null", indent=1)


def read_stack(path: Path) -> Stack:
    """A stack by its manifest alone. Raises Damage, FileNotFoundError, NotADirectoryError."""
    text = content_of(f"{path}/{MANIFEST}")
    try:
        content = from_json(text)
        files = {str(name): (int(size), str(sha)) for name, (size, sha) in content["files"].items()}
        if any("/" in name for name in files):
            raise ValueError("a file of another folder")
        return Stack(path, int(content["results_version"]), files)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise Damage(f"{MANIFEST} cannot be understood") from error


_NO_FILE = {
    errno.EISDIR: "is a folder",
    errno.ELOOP: "is a link to itself",
    errno.ENXIO: "is no regular file",
    errno.ENAMETOOLONG: "is a link to nowhere",
}


@contextlib.contextmanager
def _named(name: str) -> Iterator[None]:
    """Damage instead of the OSError of something in the place of a file that can be none."""
    try:
        yield
    except OSError as error:
        if error.errno in _NO_FILE:
            raise Damage(f"{name} {_NO_FILE[error.errno]}") from error
        raise


def content_of(path: str) -> bytes:
    """A regular file's content. Never waits, as opening a pipe would for its other end.

    Raises Damage for anything else than a file, OSError for what cannot be opened or read.
    """
    name = path.rpartition("/")[2]
    with _named(name):
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        try:
            mode = os.fstat(handle).st_mode
            if stat.S_ISREG(mode):
                with open(handle, "rb", closefd=False) as file:
                    return file.read()
        finally:
            os.close(handle)
    raise Damage(f"{name} is {'a folder' if stat.S_ISDIR(mode) else 'no regular file'}")


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
