"""Contents are on the disk before they get their name, and the name before `put` returns."""

import os
from pathlib import Path

import pytest
from store_samples import folder_of, put, record, two_cells


@pytest.fixture
def calls(monkeypatch):
    """(what, path, ...) of every flush, rename and new folder, in order."""
    made, paths = [], {}

    def spy(name, note):
        real = getattr(os, name)

        def call(*arguments, **options):
            result = real(*arguments, **options)
            note(result, *arguments)
            return result

        monkeypatch.setattr(os, name, call)

    def flushed(_, handle):
        path = paths[handle]
        made.append(("flush", path, None if path.is_dir() else path.read_bytes()))

    spy("open", lambda handle, path, *_: paths.update({handle: Path(path)}))
    spy("fsync", flushed)
    spy("replace", lambda _, old, new: made.append(("rename", Path(new), Path(old))))
    spy("mkdir", lambda _, path, *_mode: made.append(("folder", Path(path), None)))
    return made


def index(calls, what, path):
    """Where the only such call is."""
    (found,) = [i for i, (w, p, _) in enumerate(calls) if (w, p) == (what, path)]
    return found


def flushed(calls, path):
    """Where a path was flushed, each time."""
    return [i for i, (what, p, _) in enumerate(calls) if (what, p) == ("flush", path)]


def test_a_stack_is_flushed_before_its_rename_and_its_name_after_it(store, calls):
    addresses = put(store, weights=lambda path: path.write_bytes(b"weights"))
    target = folder_of(store, addresses)
    rename = index(calls, "rename", target)
    aside = calls[rename][2]
    files = list(target.iterdir())
    assert len(files) == 5
    (folder,) = flushed(calls, aside)
    for path in files:
        (at,) = flushed(calls, aside / path.name)
        assert at < folder < rename
        assert calls[at][2] == path.read_bytes()  # nothing was written after the flush
    assert max(flushed(calls, target.parent)) > rename


def test_new_folders_of_the_store_are_flushed_into_their_parents(store, calls):
    put(store)
    for folder in (store.root, store.root / "cells", store.root / "cells" / record()["cell"]):
        assert max(flushed(calls, folder.parent)) > index(calls, "folder", folder)


def test_a_journal_is_on_the_disk_after_the_stacks_and_before_the_first_move(store, calls):
    names = store.put_all(two_cells())
    (journal,) = [i for i, c in enumerate(calls) if c[0] == "rename" and c[1].suffix == ".journal"]
    moves = [i for i, c in enumerate(calls) if c[0] == "rename" and c[1].name in names]
    assert len(moves) == 2
    for move in moves:
        assert max(flushed(calls, calls[move][2])) < journal
    assert flushed(calls, calls[journal][2])[0] < journal
    tmp = flushed(calls, store.root / "tmp")
    assert any(journal < at < min(moves) for at in tmp)


def test_the_manifest_is_flushed_before_a_removed_run_is_gone(store, calls):
    first, second = put(store)
    manifest = folder_of(store, [first, second]) / "manifest.json"
    calls.clear()
    store.remove(first)
    rename = index(calls, "rename", manifest)
    (at,) = flushed(calls, calls[rename][2])
    assert at < rename < max(flushed(calls, manifest.parent))
    assert calls[at][2] == manifest.read_bytes()
