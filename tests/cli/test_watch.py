"""What somebody who waits is told where there is no terminal."""

import threading
import time

from rich.console import Console

from bnstudy.cli import watch
from bnstudy.config import Config
from bnstudy.sweep.begin import describe
from bnstudy.sweep.protocol import Execution, Pack, StackPlan, Status


class Waits(threading.Event):
    """An end that comes after some waits, none of which takes time."""

    def __init__(self, times: int) -> None:
        super().__init__()
        self.times, self.waited = times, []

    def wait(self, timeout=None) -> bool:
        self.waited.append(timeout)
        return len(self.waited) > self.times


def launched(folder):
    """A launch of one pack, which this process has planned."""
    stack = StackPlan(configs=[Config()], seconds=100)
    pack = Pack(index=0, folder=str(folder), execution=Execution(results_dir="."), stacks=[stack])
    describe([pack], folder.name).write(folder)


def test_the_first_line_comes_soon_and_says_what_is_being_trained(tmp_path, capsys):
    launched(tmp_path)
    Status(
        total_seconds=100, done_seconds=25, started=time.time() - 10, current="digits mlp group B=4"
    ).write(tmp_path, 0)
    finished = Waits(3)
    watch._lines([tmp_path], finished, Console())
    assert finished.waited == [2, 15, 15, 15]
    first, *others = capsys.readouterr().out.splitlines()
    assert len(others) == 2
    assert "25 %" in first  # of the steps, before the first stack has ended
    assert "0 stacks done" in first
    assert "digits mlp group B=4" in first


def test_before_a_worker_has_begun_that_is_said(tmp_path, capsys):
    launched(tmp_path)
    watch._lines([tmp_path], Waits(1), Console())
    assert "starting workers" in capsys.readouterr().out
