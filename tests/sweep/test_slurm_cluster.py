"""Sweeps through a real Slurm, of one node: jobs and planners that are killed."""

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from slurm_cluster import Cluster, missing, wait_for

import bnstudy
from bnstudy.store import Store, without_provenance
from bnstudy.sweep.protocol import Launch, Status
from bnstudy.work.checkpoint import WORTH

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(bool(missing()), reason=missing() or "nothing is missing"),
]

GRID = ["study", "batch_size", "scale=smoke", "seeds=[10,11]", "train.epochs=2", "norm=batch,group",
        "train.batch_size=2,4,32", "model=mlp", "data=digits", "tracker.mode=disabled"]  # fmt: skip
# a stack is longer than 0.06 s: each has a job of its own
SLURM = ["hydra/launcher=submitit_slurm", "launcher.minutes_per_job=0.001", "workers=2"]
STACKS = 6


@pytest.fixture(scope="module")
def cluster(tmp_path_factory) -> Iterator[Cluster]:
    with Cluster(tmp_path_factory.mktemp("slurm")) as started:
        yield started


@pytest.fixture(scope="module")
def local(tmp_path_factory) -> str:
    """The table of the same command with workers of this machine."""
    folder = tmp_path_factory.mktemp("local")
    subprocess.run(
        [sys.executable, "-m", "bnstudy", *GRID, f"results_dir={folder / 'results'}"],
        cwd=folder, env={**os.environ, "PYTHONPATH": path()}, check=True, capture_output=True,
    )  # fmt: skip
    return table(folder)


def path() -> str:
    return os.pathsep.join([str(Path(bnstudy.__file__).parents[1]), *sys.path])


def start(cluster: Cluster, folder: Path, *words: str) -> subprocess.Popen:
    """The study's command; its output goes to a file."""
    with (folder / "output").open("a") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "bnstudy", *(words or [*GRID, *SLURM]), "results_dir=results"],
            cwd=folder, env={**cluster.env, "PYTHONPATH": path()}, stdout=log, stderr=log,
        )  # fmt: skip


def finish(process: subprocess.Popen, folder: Path, code: int = 0) -> str:
    """What it printed; `code` is the exit code that it must have."""
    process.wait(timeout=300)
    output = (folder / "output").read_text()
    assert process.returncode == code, output
    return output


def table(folder: Path) -> str:
    return without_provenance(Store(folder / "results" / "runs").table()).to_csv(index=False)


def launches(folder: Path) -> list[Path]:
    return sorted(p.parent for p in folder.glob("results/runs/launches/*/launch.json"))


def submitted(folder: Path) -> Counter[str]:
    """How often each stack was submitted."""
    packs = [pack for f in launches(folder) for pack in Launch.read(f).packs]
    return Counter(name for pack in packs for name in pack)


def stored(folder: Path) -> int:
    return len(list(folder.glob("results/runs/cells/*/*/manifest.json")))


def training(folder: Path) -> list[int]:
    """Jobs, by their index, whose worker has made steps."""
    return [i for f in launches(folder) for i, status in Status.read(f).items() if status.started]


@pytest.mark.parametrize("launcher", ["basic", "joblib", "submitit_local"])
def test_every_launcher_makes_the_same_records(cluster, tmp_path, local, launcher):
    finish(start(cluster, tmp_path, *GRID, "workers=2", f"hydra/launcher={launcher}"), tmp_path)
    assert set(Store(tmp_path / "results" / "runs").table()["launcher"]) == {launcher}
    assert table(tmp_path) == local


def test_nothing_is_submitted_twice_when_the_planner_dies(cluster, tmp_path, local):
    """What was cancelled meanwhile is submitted again, and nothing else."""
    planner = start(cluster, tmp_path)
    wait_for(lambda: stored(tmp_path) >= 1 and len(cluster.jobs("PENDING")) >= 2, 120)
    planner.kill()
    planner.wait()
    queued = cluster.jobs("PENDING")
    assert len(queued) >= 2, "it was over too soon to be a test"
    cluster("scancel", queued[-1])
    output = finish(start(cluster, tmp_path), tmp_path)
    assert "that an earlier command submitted" in output
    assert sorted(submitted(tmp_path).values()) == [1] * (STACKS - 1) + [2]
    assert table(tmp_path) == local


def test_a_cancelled_job_is_launched_again(cluster, tmp_path, local):
    planner = start(cluster, tmp_path)
    wait_for(lambda: training(tmp_path) and cluster.jobs("RUNNING"), 120)
    cluster("scancel", cluster.jobs("RUNNING")[0])
    assert "launching again" in finish(planner, tmp_path)
    assert sorted(submitted(tmp_path).values()) == [1] * (STACKS - 1) + [2]
    assert table(tmp_path) == local


LONG = ["train", "-m", "norm=batch,group", "model=mlp", "train.batch_size=4", "seeds=[10]",
        "train.epochs=600", "data.train_size=400", "tracker.mode=disabled"]  # fmt: skip


def preempted(cluster: Cluster) -> None:
    """An urgent job needs the node: Slurm sends SIGTERM."""
    cluster("sbatch", "--partition=urgent", "--exclusive", "--output=/dev/null", "--wrap=sleep 2")


def warned(cluster: Cluster) -> None:
    """The signal that submitit has Slurm send before a job's time is over."""
    cluster("scancel", "--signal=USR2", *cluster.jobs("RUNNING"))


@pytest.mark.parametrize("interrupted", [preempted, warned])
def test_a_job_that_must_stop_is_requeued_and_continues_from_its_checkpoint(
    cluster, tmp_path, interrupted
):
    """In the middle of its stack; nothing is submitted again."""
    planner = start(cluster, tmp_path, *LONG, *SLURM)
    wait_for(lambda: len(training(tmp_path)) == 2, 120)
    begun = max(status.started for status in Status.read(launches(tmp_path)[0]).values())
    wait_for(lambda: time.time() > begun + WORTH, 60)  # sooner there is nothing to lose
    assert len(cluster.jobs("RUNNING")) == 2, "they were over too soon to be a test"
    interrupted(cluster)
    wait_for(lambda: restarts(cluster, tmp_path) == 2, 120)
    finish(planner, tmp_path)
    assert set(submitted(tmp_path).values()) == {1}
    store = Store(tmp_path / "results" / "runs")
    assert [record["provenance"].get("resumed") for record in store] == [1, 1]
    (tmp_path / "elsewhere").mkdir()
    finish(start(cluster, tmp_path / "elsewhere", *LONG), tmp_path / "elsewhere")
    assert table(tmp_path) == table(tmp_path / "elsewhere")


def restarts(cluster: Cluster, folder: Path) -> int:
    """How many jobs of a launch Slurm has begun again."""
    described = cluster("scontrol", "show", "job", "--oneliner").splitlines()
    own = [line for line in described if f"JobName={launches(folder)[0].name}" in line]
    return sum("Restarts=0" not in line for line in own)


def test_detached_jobs_are_seen_from_elsewhere_and_gathered_by_the_same_command(
    cluster, tmp_path, local
):
    assert "submitted 6 jobs with 6 stacks" in finish(
        start(cluster, tmp_path, *GRID, *SLURM, "--detach"), tmp_path
    )
    seen = finish(start(cluster, tmp_path, "watch", "--once"), tmp_path)
    assert "queued of 12" in seen
    assert "jobs queued" in seen
    wait_for(lambda: stored(tmp_path) >= 1, 120)
    output = finish(start(cluster, tmp_path), tmp_path)
    assert "that an earlier command submitted" in output
    assert set(submitted(tmp_path).values()) == {1}
    assert table(tmp_path) == local
    assert "ended with 12 done" in finish(start(cluster, tmp_path, "watch", "--once"), tmp_path)


def test_ctrl_c_empties_the_queue_and_the_same_command_continues(cluster, tmp_path, local):
    planner = start(cluster, tmp_path)
    wait_for(lambda: training(tmp_path), 120)
    planner.send_signal(signal.SIGINT)
    finish(planner, tmp_path, code=130)
    assert not cluster.jobs("PENDING", "RUNNING", "COMPLETING")
    assert stored(tmp_path) < STACKS
    finish(start(cluster, tmp_path), tmp_path)
    assert table(tmp_path) == local


def test_a_partition_that_is_not_there_is_refused_before_anything_is_queued(cluster, tmp_path):
    wrong = start(cluster, tmp_path, *GRID, *SLURM, "launcher.partition=urgnt")
    output = finish(wrong, tmp_path, code=2)
    assert "unknown partition 'urgnt'. Did you mean 'urgent'? Allowed: debug, urgent." in output
    assert "Traceback" not in output
    assert not cluster.jobs("PENDING", "RUNNING")


def test_jobs_that_cannot_begin_are_reported_once_with_their_end(cluster, tmp_path):
    """Such as one whose node lacks the package."""
    broken = start(cluster, tmp_path, *GRID, *SLURM, "hydra.launcher.setup=[exit 3]")
    output = finish(broken, tmp_path, code=2)
    assert "no job began to work" in output
    assert "FAILED" in output
    assert set(submitted(tmp_path).values()) == {1}
