"""A sweep that is killed and started again ends with the table of one that was not."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bnstudy.store import Store, without_provenance

pytestmark = pytest.mark.slow

COMMAND = ["study", "batch_size", "scale=smoke", "seeds=[10,11,12]", "train.epochs=4",
           "train.batch_size=2,4,32", "tracker.mode=disabled", "workers=2"]  # fmt: skip
CONTINUES = "(stopped); the same command continues where this one ended: "
# kills the worker inside Store.put, when the first record of a stack is written and the second not
BETWEEN_RECORDS = """
import os, signal, pathlib
from bnstudy.store import stack as store
marker = pathlib.Path(os.environ["KILL_ONCE"])
original = store.encode
def encode(record):
    text = original(record)
    if record["seed"] == 11 and not marker.exists():
        marker.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return text
store.encode = encode
"""


def start(results: Path, **env: str) -> subprocess.Popen:
    with log_of(results).open("w") as log:
        return subprocess.Popen(
            [sys.executable, "-c", "from bnstudy.cli import main; main()", *COMMAND,
             f"results_dir={results}"],
            env={**os.environ, **env}, start_new_session=True,
            stdout=log, stderr=subprocess.STDOUT,
        )  # fmt: skip


def log_of(results: Path) -> Path:
    """Output goes to a file: a pipe would be held open by workers that outlive their parent."""
    return results.with_suffix(".log")


def finish(process: subprocess.Popen, results: Path) -> str:
    process.wait(timeout=600)
    output = log_of(results).read_text()
    assert process.returncode == 0, output
    return output


def cells(results: Path) -> int:
    return len(list((results / "runs" / "cells").glob("*/*/manifest.json")))


def workers(parent: int) -> list[int]:
    """Processes that run a pack: the planner's children, while W&B is off."""
    try:
        return list(map(int, Path(f"/proc/{parent}/task/{parent}/children").read_text().split()))
    except OSError:
        return []


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def wait_for(condition, seconds=240):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "the sweep did not get there in time"
        time.sleep(0.05)


def table(results: Path):
    return without_provenance(Store(results / "runs").table()).to_csv(index=False)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory) -> str:
    results = tmp_path_factory.mktemp("whole")
    finish(start(results), results)
    return table(results)


@pytest.mark.parametrize("victim", ["worker", "parent", "both", "parent at once"])
def test_after_sigkill_only_what_is_missing_is_trained(tmp_path, uninterrupted, victim):
    process = start(tmp_path)
    least = 0 if victim == "parent at once" else 3
    wait_for(lambda: cells(tmp_path) >= least and workers(process.pid))
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "runs").glob("cells/*/*/manifest.json")}
    children = workers(process.pid)
    if victim in ("worker", "both"):
        os.kill(children[0], signal.SIGKILL)
    if victim != "worker":
        process.kill()
        process.wait()
        if least:  # a worker that has begun notices; one without work yet is idle and harmless
            wait_for(lambda: not any(map(alive, children)), 60)
        finish(start(tmp_path), tmp_path)
    else:  # the planner looks at the store and launches again by itself
        assert "launching again" in finish(process, tmp_path)
    assert table(tmp_path) == uninterrupted
    for path, written in before.items():
        assert path.stat().st_mtime_ns == written, "a finished stack was trained again"


def test_a_kill_between_two_records_of_a_stack_leaves_none_of_them(tmp_path, uninterrupted):
    site = tmp_path / "site"
    site.mkdir()
    (site / "sitecustomize.py").write_text(BETWEEN_RECORDS)
    results = tmp_path / "results"
    env = {"PYTHONPATH": str(site), "KILL_ONCE": str(tmp_path / "killed")}
    output = finish(start(results, **env), results)
    assert (tmp_path / "killed").exists()
    assert "launching again" in output
    assert table(results) == uninterrupted


def test_ctrl_c_finishes_what_is_complete_and_says_how_to_go_on(tmp_path, uninterrupted):
    process = start(tmp_path)
    wait_for(lambda: cells(tmp_path) >= 2)
    os.kill(process.pid, signal.SIGINT)
    process.wait(timeout=120)
    output = log_of(tmp_path).read_text()
    assert process.returncode == 130
    assert f"{CONTINUES}bnstudy study batch_size" in output
    assert "Traceback" not in output
    finish(start(tmp_path), tmp_path)
    assert table(tmp_path) == uninterrupted


def test_sigterm_finishes_what_is_complete_as_ctrl_c_does(tmp_path, uninterrupted):
    process = start(tmp_path)
    wait_for(lambda: cells(tmp_path) >= 2)
    process.terminate()
    process.wait(timeout=120)
    output = log_of(tmp_path).read_text()
    assert process.returncode == 128 + signal.SIGTERM
    assert f"{CONTINUES}bnstudy study batch_size" in output
    assert "Traceback" not in output
    finish(start(tmp_path), tmp_path)
    assert table(tmp_path) == uninterrupted


def test_a_worker_that_is_told_to_end_is_replaced(tmp_path, uninterrupted):
    process = start(tmp_path)
    wait_for(lambda: cells(tmp_path) >= 3 and workers(process.pid))
    os.kill(workers(process.pid)[0], signal.SIGTERM)
    output = finish(process, tmp_path)
    assert "launching again" in output
    assert table(tmp_path) == uninterrupted


def test_workers_were_forked(uninterrupted, tmp_path):
    finish(start(tmp_path), tmp_path)
    assert set(Store(tmp_path / "runs").table()["launcher"]) == {"forked"}
