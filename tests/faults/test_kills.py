"""Signals at random moments of a sweep: what was complete stays, the final table is the same."""

import random
import signal
import time
from collections import Counter

import pytest
from sweeps import (
    STACKS,
    alive,
    clean,
    done,
    finish,
    handles,
    output,
    signalled,
    start,
    table,
    wait_for,
    workers,
)

pytestmark = pytest.mark.slow
KILLS = 100


def killed(pid: int) -> bool:
    """Whether a SIGKILL met a living process; returns when it is dead."""
    was = signalled(pid, signal.SIGKILL)
    wait_for(lambda: not alive(pid))
    return was


def ended(process, pids) -> None:
    process.wait()
    wait_for(lambda: not any(map(alive, pids)))


def test_a_sweep_that_is_killed_a_hundred_times_ends_with_the_same_table(tmp_path, whole, capsys):
    """Kill i comes at a random moment after i / 2 stacks, so that 100 fit into the sweep of 60."""
    rng, tally, begun = random.Random(0), Counter(), 0
    process, kept = None, {}
    while (i := sum(tally.values())) < KILLS:

        def reached(i=i):
            nonlocal process, begun
            if process is None or process.poll() is not None:
                assert len(done(tmp_path)) < STACKS, f"the sweep was over after {i} kills"
                process, begun = start(tmp_path), begun + 1
            return len(done(tmp_path)) >= i // 2 and workers(process.pid)

        wait_for(reached)
        ahead = len(done(tmp_path)) - i // 2
        time.sleep(rng.uniform(0, 0.5 / (1 + ahead)))  # the more is done, the sooner
        victim = rng.choices(["worker", "planner", "both"], [8, 1, 1])[0]
        pids = workers(process.pid)
        if victim != "planner" and pids:
            tally["worker"] += killed(rng.choice(pids))
        if victim != "worker" and process.poll() is None:
            tally["planner"] += killed(process.pid)
            ended(process, pids)
        now = {path: path.stat().st_mtime_ns for path in done(tmp_path)}
        assert kept.items() <= now.items(), "a complete stack was lost or trained again"
        kept = now
    process.wait(timeout=600)
    finish(start(tmp_path), tmp_path)
    now = {path: path.stat().st_mtime_ns for path in done(tmp_path)}
    assert kept.items() <= now.items()
    assert table(tmp_path) == whole
    clean(tmp_path)
    assert "Traceback" not in output(tmp_path)
    with capsys.disabled():
        print(f"\n{sum(tally.values())} SIGKILLs {dict(tally)}, {begun + 1} commands: same table")


@pytest.mark.parametrize("victim", ["worker", "planner", "both"])
def test_what_is_stopped_for_a_while_goes_on(tmp_path, whole, victim):
    """SIGSTOP is what a laptop's lid does: nobody is taken for dead, nothing runs twice."""
    process = start(tmp_path)
    wait_for(lambda: len(done(tmp_path)) >= 5 and workers(process.pid))
    pids = workers(process.pid)[:1] if victim != "planner" else []
    pids += [process.pid] if victim != "worker" else []
    for pid in pids:
        assert signalled(pid, signal.SIGSTOP)
    time.sleep(3)
    for pid in reversed(pids):
        assert signalled(pid, signal.SIGCONT)
    finish(process, tmp_path)
    assert "launching again" not in output(tmp_path)
    assert table(tmp_path) == whole
    clean(tmp_path)


ENDS = {
    "SIGTERM": ([signal.SIGTERM], 143),
    "Ctrl-C": ([signal.SIGINT], 130),
    "Ctrl-C twice": ([signal.SIGINT, signal.SIGINT], 130),
}


@pytest.mark.parametrize("how", ENDS)
def test_a_sweep_that_is_told_to_end_says_so_and_goes_on_later(tmp_path, whole, how):
    signals, code = ENDS[how]
    for least in (0, 10, 25):
        process = start(tmp_path)
        wait_for(
            lambda p=process, n=least: (
                len(done(tmp_path)) >= n and workers(p.pid) and handles(p.pid, signal.SIGTERM)
            )
        )
        pids = workers(process.pid)
        for number in signals:
            signalled(process.pid, number)
            time.sleep(0.05)
        assert process.wait(timeout=300) == code, output(tmp_path)
        wait_for(lambda pids=pids: not any(map(alive, pids)))
    said = output(tmp_path)
    assert "stopping once finished work is written" in said
    assert "Traceback" not in said
    if how != "Ctrl-C twice":
        assert said.count("the same command continues where this one ended") == 3
    finish(start(tmp_path), tmp_path)
    assert table(tmp_path) == whole
    clean(tmp_path)
