"""Several processes at once on one store."""

import contextlib
import multiprocessing
import os

import pytest
from store_samples import put

from bnstudy.errors import UserError
from bnstudy.store import Store


def write_all(root, start, errors):
    start.wait()
    try:
        for batch_size in range(2, 12):
            put(Store(root), batch_size=batch_size, wall=os.getpid())
    except Exception as e:
        errors.put(repr(e))
        raise


def remove_all(root, start, errors):
    start.wait()
    store = Store(root)
    try:
        for _ in range(40):
            for address in sorted(store.held())[::2]:
                with contextlib.suppress(UserError):  # another remover was faster
                    store.remove(address)
    except Exception as e:
        errors.put(repr(e))
        raise


def read_all(root, start, errors):
    start.wait()
    store = Store(root, say=errors.put)
    try:
        for _ in range(40):
            store.held()
            store.table()
    except Exception as e:
        errors.put(repr(e))
        raise


def run_together(root, targets):
    # spawned, not forked: this process has threads
    context = multiprocessing.get_context("spawn")
    start, errors = context.Barrier(len(targets)), context.Queue()
    workers = [context.Process(target=t, args=(root, start, errors)) for t in targets]
    for w in workers:
        w.start()
    for w in workers:
        w.join(60)
    assert errors.empty(), errors.get()
    assert [w.exitcode for w in workers] == [0] * len(targets)


@pytest.mark.slow
def test_processes_that_write_the_same_lose_nothing(tmp_path, said):
    run_together(tmp_path, [write_all, write_all, write_all, read_all])
    store = Store(tmp_path, say=said.append)
    assert len(store.held()) == 20
    assert len(store.table()) == 20
    assert not list((tmp_path / "tmp").iterdir())
    assert said == []


@pytest.mark.slow
def test_removal_beside_reading_and_writing_is_never_taken_for_damage(tmp_path):
    put(Store(tmp_path))
    run_together(tmp_path, [write_all, write_all, remove_all, remove_all, read_all])
    assert not (tmp_path / "damaged").exists()
