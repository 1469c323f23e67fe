"""Several commands at once on one store, of which one may remove what another has trained."""

import signal
import subprocess
import sys

import pytest
from sweeps import SIXTY, clean, done, finish, output, start, table, wait_for, workers

pytestmark = pytest.mark.slow
BESIDE = (["ls"], ["report"], ["export", "--csv", "table.csv"], ["show", "norm=batch"], ["doctor"])


def beside(results, *words: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", "bnstudy", *words, f"results_dir={results}"],
        capture_output=True, text=True, check=False, timeout=300, cwd=results,
    )  # fmt: skip


@pytest.mark.parametrize("number", [2, 3])
def test_sweeps_on_one_store_share_it_and_survive_the_death_of_one(tmp_path, whole, number):
    processes = [start(tmp_path, stem=f"log{i}", workers=1) for i in range(number)]
    wait_for(lambda: len(done(tmp_path)) >= 10)
    processes[0].kill()
    processes[0].wait()
    for i, process in enumerate(processes[1:], 1):
        finish(process, tmp_path, f"log{i}")
    assert table(tmp_path) == whole
    clean(tmp_path)


def test_commands_that_read_beside_a_running_sweep_end_well(tmp_path, whole, capsys):
    process, ran = start(tmp_path), 0
    wait_for(lambda: done(tmp_path))
    while process.poll() is None:
        for words in BESIDE:
            ended = beside(tmp_path, *words)
            assert ended.returncode == 0, (words, ended.stderr)
            assert "Traceback" not in ended.stderr
            assert "damaged" not in ended.stderr
            ran += 1
    finish(process, tmp_path)
    assert table(tmp_path) == whole
    clean(tmp_path)
    with capsys.disabled():
        print(f"\n{ran} commands beside a running sweep")


def test_what_is_removed_during_a_sweep_is_named_at_its_end(tmp_path, whole):
    first = [word for word in SIXTY if not word.startswith("norm=")]
    finish(start(tmp_path, *first, "norm=batch", workers=1), tmp_path)
    process = start(tmp_path)
    wait_for(lambda: workers(process.pid) and len(done(tmp_path)) > 30)
    process.send_signal(signal.SIGSTOP)
    removed = beside(tmp_path, "rm", "--yes", "norm=batch")
    process.send_signal(signal.SIGCONT)
    assert "removed 30 records" in removed.stdout, removed.stderr
    assert process.wait(timeout=600) == 1, output(tmp_path)
    said = output(tmp_path)
    assert "gone     30 runs of this grid left the store while it was trained" in said
    assert "Traceback" not in said
    finish(start(tmp_path), tmp_path)
    assert table(tmp_path) == whole
    clean(tmp_path)
