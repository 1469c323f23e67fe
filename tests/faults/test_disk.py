"""A disk that is full at each kind of write, or read-only; a clock that runs backwards."""

import errno
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from pyarrow import parquet
from shell import GRID, bnstudy_, own_folder
from store_samples import two_cells
from sweeps import SIXTY, clean, finish, output, start, table

from bnstudy.store import Store, Unwritable, journal

__all__ = ["own_folder"]  # a fixture that acts by being here
WRITES = ((Path, "write_bytes"), (parquet, "write_table"), (os, "mkdir"), (os, "replace"),
          (os, "fsync"))  # fmt: skip
NUMBERS = (errno.ENOSPC, errno.EROFS, errno.EIO)


def failing(monkeypatch, at: int, number: int) -> list[str]:
    """Write number `at` raises; the names of those before it and of itself."""
    done: list[str] = []

    def spy(where, name):
        real = getattr(where, name)

        def call(*arguments, **options):
            done.append(name)
            if len(done) == at + 1:
                raise OSError(number, os.strerror(number))
            return real(*arguments, **options)

        monkeypatch.setattr(where, name, call)

    for where, name in WRITES:
        spy(where, name)
    return done


def refusal(store: Store) -> str:
    """The message of a store that cannot take two stacks; empty where it can."""
    try:
        store.put_all(two_cells())
    except Unwritable as error:
        return str(error)
    return ""


@pytest.mark.parametrize("number", NUMBERS)
def test_at_any_write_all_or_nothing_is_stored_and_said(tmp_path, monkeypatch, number, capsys):
    """Stacks of two cells, trained together; the process that met the full disk is dead then."""
    kinds, found, at = set(), [], 0
    while True:
        root, said = tmp_path / str(at), []
        with monkeypatch.context() as patched:
            done = failing(patched, at, number)
            message = refusal(Store(root, say=said.append))
        if not message:
            assert len(done) <= at, f"a failing {done[at]} was passed over"
            break
        assert os.strerror(number) in message
        kinds.add(done[at])
        monkeypatch.setattr(journal, "_alive", lambda pid: False)
        store = Store(root, say=said.append)
        found.append(len(store.held()))
        assert found[-1] in (0, 4)
        assert list((root / "tmp").glob("*")) == []
        store.put_all(two_cells())
        assert len(store.table()) == 4
        assert said == []
        at += 1
    assert kinds == {name for _, name in WRITES}
    assert found == sorted(found)
    with capsys.disabled():
        print(f"\n{at} writes of two stacks, {os.strerror(number)} at each: all or nothing")


@pytest.fixture
def disk(tmp_path):
    """A small file system of its own; given a size or `ro`, it becomes so."""
    place = tmp_path / "disk"
    place.mkdir()

    def mount(*options: str) -> None:
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", ",".join(options), "tmpfs", place],
            check=False, capture_output=True, text=True,
        )  # fmt: skip
        if done.returncode:
            pytest.skip(f"no file system can be mounted here: {done.stderr.strip()}")

    mount("size=300k")
    yield place, mount
    subprocess.run(["umount", place], check=False)


@pytest.mark.slow
def test_a_sweep_that_fills_the_disk_says_so_and_goes_on_when_there_is_room(disk, whole):
    place, mount = disk
    results = place / "results"
    words = [*SIXTY, "workers=2", f"results_dir={results}"]
    full = subprocess.run(
        [sys.executable, "-m", "bnstudy", *words],
        capture_output=True, text=True, timeout=600, check=False,
    )  # fmt: skip
    assert full.returncode in (1, 2), full.stdout + full.stderr
    assert "No space left on device" in full.stderr
    assert "Traceback" not in full.stdout + full.stderr
    before = set(Store(results / "runs").held())
    mount("remount", "size=100m")
    finish(start(results), results)
    assert before < Store(results / "runs").held()
    assert table(results) == whole
    clean(results)
    mount("remount", "ro")
    for words in (["ls"], ["export", "--csv", "-"], ["show", "norm=batch"]):
        said = bnstudy_(*words, f"results_dir={results}")
        assert said.exit_code == 0, said.stderr
    for words in (["report"], ["rm", "--yes", "norm=batch"], GRID):
        refused = bnstudy_(*words, f"results_dir={results}")
        assert refused.exit_code in (1, 2)
        assert "Read-only file system" in refused.stderr
        assert refused.stderr.count("bnstudy: ") == 1
    assert len(output(results).splitlines()) > 0


def test_a_clock_that_runs_backwards_changes_nothing(monkeypatch, tmp_path):
    """A step back before every look at it, as time synchronization may make one."""
    begin, looks = time.time(), [0]

    def back() -> float:
        looks[0] += 1
        return begin - 60 * looks[0]

    straight = bnstudy_(*GRID, "results_dir=straight")
    monkeypatch.setattr(time, "time", back)
    turned = bnstudy_(*GRID, "results_dir=turned", "max_minutes=1000000")
    assert turned.exit_code == straight.exit_code == 0, turned.stderr
    assert looks[0] > 10
    assert table(Path("turned")) == table(Path("straight"))
    clean(Path("turned"))
