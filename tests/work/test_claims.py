"""Who trains which stack: one process at a time, and nobody forever."""

import errno
import os
import subprocess
import sys

import pytest

from bnstudy.work import claims
from bnstudy.work.claims import Claims

NAME, OTHER = "c9d47e387ad077db", "0052d075ef454bc9"
HOLD = """
import sys
from pathlib import Path
from bnstudy.work.claims import Claims
with Claims(Path(sys.argv[1])) as own:
    print(own.take(sys.argv[2]), flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def holder(tmp_path):
    """Another process that holds the stack NAME until it is told or killed."""
    running = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path), NAME],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert running.stdout.readline() == "True\n"
    yield running
    running.kill()
    running.communicate()


def test_a_stack_is_one_processs_at_a_time(tmp_path, holder):
    with Claims(tmp_path) as own:
        assert not own.take(NAME)
        assert own.take(OTHER)
        own.give_back(OTHER)
        holder.communicate("")
        assert own.take(NAME)


def test_a_claim_ends_with_the_process_however_that_ends(tmp_path, holder):
    with Claims(tmp_path) as own:
        assert not own.take(NAME)
        holder.kill()
        holder.wait()
        assert own.take(NAME)


def test_nothing_is_left_behind_for_each_stack(tmp_path):
    with Claims(tmp_path) as own:
        for name in (NAME, OTHER):
            assert own.take(name)
            own.give_back(name)
    assert [p.name for p in tmp_path.iterdir()] == ["claims"]
    assert (tmp_path / "claims").stat().st_size == 0


def test_without_locks_everybody_trains(tmp_path, monkeypatch):
    monkeypatch.setattr(claims, "fcntl", None)
    with Claims(tmp_path) as own:
        assert own.take(NAME)
        own.give_back(NAME)
    monkeypatch.undo()

    def lockf(*how):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(claims.fcntl, "lockf", lockf)
    with Claims(tmp_path) as own:
        assert own.take(NAME)
        own.give_back(NAME)
