"""Fraction done and time left, from what the workers write of themselves."""

import os
import socket

from bnstudy.sweep.progress import clock, eta, remaining, sweep
from bnstudy.sweep.protocol import Job, Launch, StackStatus, State, Status


def worker(total: float, done: float, started: float = 100.0) -> Status:
    return Status(total_seconds=total, done_seconds=done, started=started)


def test_what_is_left_is_what_the_slowest_worker_has_left_at_the_measured_pace():
    # 10 + 30 estimated seconds in twice 20 s of two workers: a pace of 1
    fraction, left = eta([worker(60, 10), worker(60, 30)], now=120.0)
    assert fraction == 40 / 120
    assert left == 50.0
    # the same work in half the time: twice the pace
    assert eta([worker(60, 10), worker(60, 30)], now=110.0)[1] == 25.0


def test_nothing_is_said_before_there_is_something_to_measure():
    assert eta([], now=0.0) == (0.0, None)
    assert eta([worker(60, 0, started=0.0)], now=50.0) == (0.0, None)  # still importing
    assert eta([worker(60, 1)], now=102.0) == (1 / 60, None)  # two seconds of steps


def test_the_line_names_the_evaluation_that_no_estimate_holds():
    assert remaining(0.5, 30.0) == "ETA 0:30"
    assert remaining(0.5, None) == "ETA ?"
    assert remaining(1.0, 0.4) == "evaluating"
    assert clock(187) == "3:07"


def test_work_that_no_worker_has_begun_is_shared_among_those_that_work():
    # a pace of 1; 60 more wait in a queue: 2 workers have (50 + 30 + 60) / 2 each
    statuses = [worker(60, 10), worker(60, 30)]
    assert eta(statuses, now=120.0, total=180.0) == (40 / 180, 70.0)


def launched(folder, jobs=None, **more):
    """A launch with a stack for each of its packs."""
    folder.mkdir()
    planner = {"host": socket.gethostname(), "pid": os.getpid(), "begun": float(folder.name)}
    packs = [{"a": 2}, {"b": 3}]
    Launch(sweep="first", packs=packs, jobs=jobs or {}, **planner, **more).write(folder)
    return folder


def says(folder, index, state, pid):
    status = Status(stacks={"ab"[index]: StackStatus(state=state)}, current=f"stack {'ab'[index]}")
    status.write(folder, index)
    path = folder / f"status-{index}.json"
    path.write_text(path.read_text().replace(f'"pid":{os.getpid()}', f'"pid":{pid}'))


DEAD = 2**22 + 1  # above the largest number that Linux gives a process


def test_models_are_counted_by_the_state_of_their_stack(tmp_path):
    folder = launched(tmp_path / "1")
    assert sweep([folder]).models == {State.PLANNED: 5}
    says(folder, 0, State.RUNNING, os.getpid())
    says(folder, 1, State.RUNNING, DEAD)
    now = sweep([folder])
    assert now.models == {State.RUNNING: 2, State.DIED: 3}
    assert now.doing == ["stack a"]
    assert now.alive
    says(folder, 0, State.DONE, DEAD)
    later = launched(tmp_path / "2", ended=9.0)  # of the same command: its word is the last
    says(later, 1, State.FAILED, DEAD)
    now = sweep([folder, later])
    assert now.models[State.FAILED] == 3
    assert not sweep([later]).alive


def test_a_job_in_the_queue_is_queued_whatever_its_worker_said_before(tmp_path):
    jobs = {0: Job(id="7_0", state="PENDING", reason="Priority"), 1: Job(id="7_1", state="TIMEOUT")}
    folder = launched(tmp_path / "1", jobs)
    says(folder, 0, State.RUNNING, DEAD)
    says(folder, 1, State.RUNNING, DEAD)
    now = sweep([folder])
    assert now.models == {State.PLANNED: 2, State.DIED: 3}
    assert [job.reason for job in now.waiting] == ["Priority"]
    assert now.doing == []
