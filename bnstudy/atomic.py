"""Files and folders that appear whole or not at all, and survive a power cut.

The only place of the package that writes aside and renames. The order is always: contents to the
disk, then the rename, then the folder that holds the new name to the disk. Without the first, a
power cut can leave the new name with no content; without the last, the old name.
"""

import contextlib
import errno
import os
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal


def write_atomically(path: Path, content: str | bytes, durable: bool = True) -> None:
    """Write a file so that a reader sees the old or the new content, never a part.

    Args:
        content: text is written as UTF-8.
        durable: False spares the wait for the disk, for files that only live processes read.
    """
    with replacing(path, durable) as aside:
        aside.write_bytes(content.encode() if isinstance(content, str) else content)


def write_json(path: Path, value: Any) -> None:
    """`write_atomically` of `json_text`: what is not finite becomes null."""
    write_atomically(path, json_text(value, "null", indent=2) + "\n")


def json_text(value: Any, not_finite: Literal["null", "strings"], indent: int) -> str:
    """JSON that every reader accepts: equal values give equal texts, with sorted keys.

    Args:
        value: dicts, lists, tuples, texts, numbers (also of numpy and torch, arrays as lists).
        not_finite: NaN and the infinities become null, or the texts "NaN", "Infinity",
            "-Infinity". JSON has no numbers for them.
        indent: spaces per level.
    """
    from pydantic_core import to_json

    found = to_json(_sorted(value), indent=indent, inf_nan_mode=not_finite, fallback=_plain)
    return found.decode()


@contextlib.contextmanager
def replacing(path: Path, durable: bool = True) -> Iterator[Path]:
    """A path beside `path` to write a file to; it becomes `path` when the block ends well.

    `durable` as in `write_atomically`.
    """
    aside = path.with_name(f".{path.name}.{os.getpid()}.{uuid.uuid4().hex[:8]}")
    try:
        yield aside
        if durable:
            sync(aside)
            rename(aside, path)
        else:
            os.replace(aside, path)
    except BaseException:
        aside.unlink(missing_ok=True)
        raise


def rename(aside: Path, path: Path) -> None:
    """Give a synced file or folder its final name, which then survives a power cut.

    Replaces a file or an empty folder. Raises OSError (ENOTEMPTY or EEXIST) for another folder.
    """
    os.replace(aside, path)
    with contextlib.suppress(FileNotFoundError):  # others have removed both since
        _fsync(path.parent)


def sync(path: Path) -> None:
    """Wait until a file, or a folder and everything in it, is on the disk."""
    if path.is_dir():
        for inside in sorted(path.iterdir()):
            sync(inside)
    _fsync(path)


def make_folder(path: Path) -> None:
    """`mkdir -p`, and the new folders survive a power cut."""
    if not path.is_dir():
        make_folder(path.parent)
        path.mkdir(exist_ok=True)
        _fsync(path.parent)


def _fsync(path: Path) -> None:
    """Flush a file's content or a folder's list of names."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        # some network file systems cannot sync a folder; they do it at once or never
        if error.errno != errno.EINVAL or not path.is_dir():
            raise
    finally:
        os.close(handle)


def _sorted(value: Any) -> Any:
    """Dicts with text keys in order, at every depth: the writer keeps the order it is given."""
    if isinstance(value, dict):
        texts = {str(key): item for key, item in value.items()}
        return {key: _sorted(texts[key]) for key in sorted(texts)}
    return [_sorted(v) for v in value] if isinstance(value, list | tuple) else value


def _plain(value: Any) -> Any:
    """Numbers and arrays of numpy and torch as Python's own."""
    if hasattr(value, "tolist"):
        return value.tolist()
    raise TypeError(f"JSON has no form for {type(value).__name__}: {value!r}")
