"""Every kind of file of a results folder, damaged in every way, before every command that reads it.

No damage is used silently and no command hangs or ends in a traceback: what cannot be trusted is
named and set aside, what is whole is listed.
"""

import json
import os
import shutil
from pathlib import Path

import pytest
from hangs import in_time
from shell import bnstudy_, own_folder
from store_samples import put, two_cells

from bnstudy.store import Store
from bnstudy.store.journal import Tmp

__all__ = ["own_folder"]  # a fixture that acts by being here
COMMANDS = (["ls"], ["show", "train.batch_size=4,8"], ["export", "--csv", "table.csv"],
            ["rm", "--stale"], ["report"], ["doctor"])  # fmt: skip


def truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flipped(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def emptied(path: Path) -> None:
    path.write_bytes(b"")


def garbage(path: Path) -> None:
    path.write_bytes(os.urandom(len(path.read_bytes())))


def another(path: Path) -> None:
    path.write_text('{"a": [1, "b"]}')


def deleted(path: Path) -> None:
    path.unlink()


def folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def loop(path: Path) -> None:
    path.unlink()
    path.symlink_to(path.name)


def dangling(path: Path) -> None:
    path.unlink()
    path.symlink_to("nowhere")


def pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


WAYS = (truncated, flipped, emptied, garbage, another, deleted, folder, loop, dangling, pipe)


def manifest(stack: Path) -> Path:
    return stack / "manifest.json"


def record(stack: Path) -> Path:
    return next(p for p in sorted(stack.glob("*.json")) if p.name != "manifest.json")


def history(stack: Path) -> Path:
    return stack / "history.parquet"


def weights(stack: Path) -> Path:
    return stack / "weights.pt"


KINDS = (manifest, record, history, weights)


def edited(change):
    """The damage of a record that is changed with its manifest: lengths and hashes agree."""

    def damage(stack: Path) -> None:
        import hashlib

        path = record(stack)
        value = json.loads(path.read_text())
        change(value)
        path.write_text(json.dumps(value))
        listed = json.loads(manifest(stack).read_text())
        content = path.read_bytes()
        listed["files"][path.name] = [len(content), hashlib.sha256(content).hexdigest()]
        manifest(stack).write_text(json.dumps(listed))

    return damage


EDITS = {
    "no config": lambda r: r.pop("config"),
    "no provenance": lambda r: r.pop("provenance"),
    "config is a list": lambda r: r.update(config=[1]),
    "a foreign key": lambda r: r["config"]["norm"].update(alien=1),
    "another value": lambda r: r["config"]["norm"].update(eps=1.0),
    "another seed": lambda r: r.update(seed=7),
    "another address": lambda r: r.update(address="0" * 16),
    "text for a number": lambda r: r["summary"].update(test_error="low"),
    "text for seconds": lambda r: r["provenance"].update(wall_seconds="long"),
    "a list for a number": lambda r: r["summary"].update(test_error=[0.1]),
    "a metric called seed": lambda r: r["summary"].update(seed=1.0),
    "a metric called norm.name": lambda r: r["summary"].update({"norm.name": 1.0}),
    "an older version": lambda r: r.update(results_version=1),
    "nothing in it": lambda r: r.clear(),
}


@pytest.fixture
def limit():
    """A command that waits for ever fails the test."""
    with in_time():
        yield


def filled() -> Path:
    """A results folder with a stack of batch size 4, to be damaged, and one of 8."""
    shutil.rmtree("results", ignore_errors=True)
    store = Store(Path("results") / "runs")
    put(store, weights=lambda path: path.write_bytes(b"weights"))
    put(store, batch_size=8)
    (stack,) = (p for p in (store.root / "cells").glob("*/*") if weights(p).exists())
    return stack


def survives(words: list[str]) -> str:
    """What a command says that must end well or with one message."""
    result = bnstudy_(*words)
    assert result.exit_code in (0, 2), (words, result.stdout, result.stderr, result.exception)
    assert "Traceback" not in result.output
    return result.stderr


@pytest.mark.slow
@pytest.mark.parametrize("words", COMMANDS, ids="_".join)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("way", WAYS)
def test_a_damaged_file_is_named_and_what_is_whole_stays(kind, way, words, limit):
    """After every command only whole runs are in the table."""
    heard: list[str] = []
    way(kind(filled()))
    said = survives(words)
    table = Store(Path("results") / "runs", say=heard.append).table()
    assert set(table["train.batch_size"]) <= {4, 8}
    assert (table["train.batch_size"] == 8).sum() == 2
    if (table["train.batch_size"] == 4).any():  # never used, or not what tables are made from
        assert (table["test_error"] == 0.25).all()
        assert len(table) == 4
    else:
        assert "damaged: stack" in said + "".join(heard)


@pytest.mark.parametrize("edit", EDITS)
def test_a_record_that_is_none_is_named_and_set_aside(edit, limit):
    stack = filled()
    edited(EDITS[edit])(stack)
    said = survives(["ls"])
    assert "damaged: stack" in said
    assert "is no record of its run" in said
    assert len(Store(Path("results") / "runs").table()) == 2


@pytest.mark.parametrize("way", WAYS)
def test_a_damaged_journal_or_half_a_stack_is_cleaned_up(way, tmp_path, limit):
    """The journal of a dead process, whose stack is gone: nothing of it stays."""
    store, said = Store(tmp_path / "runs"), []
    addresses = put(store, batch_size=16)
    tmp = Tmp(store.root)
    journal = tmp.note([(tmp.fresh(), store.root / "cells" / "a" / "b")])
    way(journal)
    if os.path.lexists(journal):
        os.utime(journal, (0, 0), follow_symlinks=False)
    assert Store(store.root, say=said.append).held() == set(addresses)
    assert list(tmp.folder.iterdir()) == []
    if way is not flipped:  # in a name, which then is that of no stack either
        assert len(said) == (way not in (deleted, dangling))


def test_a_journal_moves_nothing_out_of_the_store(tmp_path):
    store, said = Store(tmp_path / "runs"), []
    store.put_all(two_cells())
    tmp = Tmp(store.root)
    journal = tmp.note([])
    journal.write_text('[["x", "../../elsewhere"]]')
    os.utime(journal, (0, 0))
    assert len(Store(store.root, say=said.append).held()) == 4
    assert "it moves x to ../../elsewhere" in said[0]


def test_a_folder_that_this_user_cannot_read_is_no_damage(monkeypatch, limit):
    """Rights come back: nothing is set aside for the lack of them."""
    stack, opened = filled(), os.open

    def refusing(path, *rest, **more):
        if str(path) == str(manifest(stack)):
            raise PermissionError(13, "Permission denied", str(path))
        return opened(path, *rest, **more)

    with monkeypatch.context() as patched:
        patched.setattr(os, "open", refusing)
        said = survives(["ls"])
    assert "manifest.json cannot be read: Permission denied" in said
    assert len(Store(Path("results") / "runs").table()) == 4
