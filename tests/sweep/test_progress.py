"""Fraction done and time left, from what the workers write of themselves."""

from bnstudy.sweep.progress import clock, eta, remaining
from bnstudy.sweep.protocol import Status


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
