"""A kill at any moment leaves whole stacks, and all or none of those trained together."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from store_samples import put, two_cells

from bnstudy.store import Store
from bnstudy.store.journal import Tmp

KILLED = """
import sys, time
sys.path.insert(0, {tests!r})
from bnstudy.store import Store
from store_samples import put
def hang(path):
    path.write_bytes(b"half")
    print("writing", flush=True)
    time.sleep(60)
put(Store({root!r}), weights=hang)
"""


def test_a_killed_writer_leaves_nothing_that_counts_and_is_cleaned_up(tmp_path):
    code = KILLED.format(tests=os.path.dirname(__file__), root=str(tmp_path))
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"writing\n"
        store = Store(tmp_path)
        assert store.held() == set()
        put(store, batch_size=8)
        assert len(list((tmp_path / "tmp").iterdir())) == 1  # it lives: left alone
        process.send_signal(signal.SIGKILL)
    addresses = put(Store(tmp_path))
    assert not list((tmp_path / "tmp").iterdir())
    assert set(addresses) < Store(tmp_path).held()


def test_what_another_host_left_is_cleaned_after_a_day(store):
    for name, age in (("elsewhere-1-aa", 3600), ("elsewhere-1-bb", 90_000)):
        path = store.root / "tmp" / name
        path.mkdir(parents=True)
        os.utime(path, (time.time() - age,) * 2)
    put(store)
    assert [p.name for p in (store.root / "tmp").iterdir()] == ["elsewhere-1-aa"]


def test_stacks_trained_together_appear_together(tmp_path):
    store = Store(tmp_path)
    names = store.put_all(two_cells())
    assert len(set(names)) == 2
    assert len(store.held()) == 4
    assert not any(n.endswith(".journal") for n in os.listdir(tmp_path / "tmp"))


@pytest.mark.parametrize("moved", [0, 1])
def test_a_kill_while_stacks_are_moved_in_loses_none_of_them(tmp_path, moved):
    """The journal is written, `moved` of two stacks are in place, the process dies."""
    code = f"""
import os, sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
from bnstudy.store import Store
from store_samples import two_cells
move, calls = Store._move_in, []
def dying(self, *args):
    if len(calls) == {moved}:
        os._exit(9)
    calls.append(1)
    move(self, *args)
Store._move_in = dying
Store({str(tmp_path)!r}).put_all(two_cells())
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 9
    assert len(Store(tmp_path).held()) == 4
    assert os.listdir(tmp_path / "tmp") == []
    assert len(Store(tmp_path).table()) == 4


def test_a_kill_before_the_journal_leaves_nothing(tmp_path):
    code = f"""
import os, sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
from bnstudy.store import Store, records
from store_samples import two_cells
write, calls = records.write_stack, []
def dying(*args):
    if calls:
        os._exit(9)
    calls.append(1)
    write(*args)
records.write_stack = dying
Store({str(tmp_path)!r}).put_all(two_cells())
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 9
    assert Store(tmp_path).held() == set()
    assert os.listdir(tmp_path / "tmp") == []


KILLED_ANYWHERE = """
import os, sys
from pathlib import Path
sys.path.insert(0, {tests!r})
import pandas, pyarrow.parquet  # once, for all the forks
from bnstudy.store import Store
from store_samples import two_cells
root, complaints, found = Path({root!r}), [], []
for n in range(1000):
    child = os.fork()
    if child == 0:
        fsync, left = os.fsync, [n]
        def dying(handle):
            if not left[0]:
                os.kill(os.getpid(), 9)
            left[0] -= 1
            fsync(handle)
        os.fsync = dying
        Store(root / str(n)).put_all(two_cells())
        os._exit(0)
    killed = os.waitpid(child, 0)[1]
    found.append(len(Store(root / str(n), say=complaints.append).held()))
    assert list((root / str(n)).glob("tmp/*")) == []
    if not killed:
        break
assert complaints == []
print(*found)
"""


def test_a_kill_at_any_flush_leaves_all_or_none_and_names_no_damage(tmp_path):
    code = KILLED_ANYWHERE.format(tests=os.path.dirname(__file__), root=str(tmp_path))
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    found = list(map(int, done.stdout.split()))
    assert set(found) == {0, 4}
    assert found == sorted(found)  # a later kill never leaves less
    assert len(found) > 12  # each stack alone flushes five times


def test_a_stack_that_another_process_has_just_moved_does_not_stop_the_others(tmp_path):
    """Two processes finish the journal of a third: what one has moved the other must pass over."""
    tmp, moved = Tmp(tmp_path), []
    journal = tmp.note([(tmp.fresh(), tmp_path / "cells" / name / name) for name in "ab"])
    os.utime(journal, (time.time() - 90_000,) * 2)

    def move(aside, target):
        if target.name == "a":
            raise FileNotFoundError
        moved.append(target.name)

    tmp.sweep(move, say=pytest.fail)
    assert moved == ["b"]
    assert list(tmp.folder.iterdir()) == []
