"""Workers of this machine: who runs where, and that nothing is lost with them."""

import json
import os
import threading
import time

import pytest

from bnstudy.sweep import launchers
from bnstudy.sweep.protocol import Execution, Pack


@pytest.fixture(autouse=True)
def _fake(monkeypatch):
    monkeypatch.setattr(launchers, "WORKER", "fake_worker:run_pack")


def packs(folder, command="", n=2):
    execution = Execution(results_dir=str(folder), command=command)
    made = [Pack(index=i, folder=str(folder), execution=execution, stacks=[]) for i in range(n)]
    for pack in made:
        pack.write()
    return made


def said(folder):
    return [json.loads(p.read_text()) for p in sorted(folder.glob("said-*.json"))]


def test_the_planner_works_itself(tmp_path):
    launchers.in_process(packs(tmp_path))()
    assert {s["pid"] for s in said(tmp_path)} == {os.getpid()}


def test_nothing_happens_in_the_planner_before_it_is_waited_for(tmp_path):
    launchers.in_process(packs(tmp_path))
    assert said(tmp_path) == []


def test_forked_workers_have_what_the_planner_has_imported(tmp_path):
    launchers.forked(packs(tmp_path))()
    workers = said(tmp_path)
    assert len({s["pid"] for s in workers} | {os.getpid()}) == 3
    assert {s["parent"] for s in workers} == {os.getpid()}
    assert {s["imported_by"] for s in workers} == {os.getpid()}


def test_forked_workers_run_before_anybody_waits(tmp_path):
    wait = launchers.forked(packs(tmp_path))
    end = time.monotonic() + 20
    while len(said_safely(tmp_path)) < 2:
        assert time.monotonic() < end
        time.sleep(0.02)
    wait()


def said_safely(folder):
    try:
        return said(folder)
    except ValueError:  # in the middle of a write
        return []


@pytest.mark.slow
def test_spawned_workers_import_by_themselves(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", os.path.dirname(__file__) + "/../support")
    # a fresh process does not see what this test has patched
    monkeypatch.setattr(launchers, "_work", fake_life)
    launchers.spawned(packs(tmp_path, n=1))()
    (worker,) = said(tmp_path)
    assert worker["imported_by"] == worker["pid"] != os.getpid()


def fake_life(path):
    import fake_worker

    fake_worker.run_pack(path)


@pytest.mark.parametrize("command", ["die", "raise"])
def test_a_worker_that_is_lost_ends_the_wait_for_it_and_no_other(tmp_path, command, capfd):
    """What it leaves undone is found out from the store."""
    one, two = packs(tmp_path, command, n=2)
    two = two.model_copy(update={"execution": Execution(results_dir=str(tmp_path), command="wait")})
    two.write()
    launchers.forked([one, two])()
    assert len(said(tmp_path)) == 2
    capfd.readouterr()


def test_a_planner_with_a_second_thread_does_not_fork(monkeypatch):
    monkeypatch.setattr(launchers, "gpu_seen", lambda: False)
    monkeypatch.setattr(launchers, "threads", lambda: 1)
    assert launchers.local("cpu") is launchers.forked
    assert launchers.local("cuda") is launchers.spawned
    monkeypatch.setattr(launchers, "threads", lambda: 2)
    assert launchers.local("cpu") is launchers.spawned


def test_a_planner_that_saw_a_gpu_does_not_fork(monkeypatch):
    monkeypatch.setattr(launchers, "threads", lambda: 1)
    monkeypatch.setattr(launchers, "gpu_seen", lambda: True)
    assert launchers.local("auto") is launchers.spawned
    monkeypatch.setattr(launchers, "gpu_seen", lambda: False)
    monkeypatch.setattr(launchers.sys, "platform", "darwin")
    assert launchers.local("auto") is launchers.spawned


def test_threads_are_counted():
    before = launchers.threads()
    stop = threading.Event()
    thread = threading.Thread(target=stop.wait)
    thread.start()
    try:
        assert launchers.threads() == before + 1
    finally:
        stop.set()
        thread.join()
