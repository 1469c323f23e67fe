"""Two commands on one results folder share the work."""

import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from bnstudy.store import Store, without_provenance

COMMAND = ["train", "-m", "norm=batch,group", "model=mlp", "data.train_size=40", "train.steps=4",
           "train.batch_size=8", "seeds=4", "max_stack=1", "tracker.mode=disabled"]  # fmt: skip
# counts what it trains in a file; waits for its twin, and long enough in each stack to meet it
SHARING = """
import os, sys, time
from pathlib import Path
from bnstudy.work import worker
from bnstudy.work.trainer import Trainer
folder, twins, *words = sys.argv[1:]
whole = Trainer.train
def train(self, configs, *rest):
    with open(Path(folder) / "trained", "a") as file:
        file.write("".join(f"{config.address} {os.getpid()}\\n" for config in configs))
    time.sleep(0.4)
    return whole(self, configs, *rest)
Trainer.train = train
(Path(folder) / f"ready-{os.getpid()}").touch()
while len(list(Path(folder).glob("ready-*"))) < int(twins):
    time.sleep(0.01)
from bnstudy.cli import main
main(words)
"""


def start(folder: Path, twins: int, workers: int) -> subprocess.Popen:
    folder.mkdir(exist_ok=True)
    words = [*COMMAND, f"workers={workers}", f"results_dir={folder / 'results'}"]
    return subprocess.Popen(
        [sys.executable, "-c", SHARING, str(folder), str(twins), *words],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip


def finish(process: subprocess.Popen) -> str:
    out, _ = process.communicate(timeout=300)
    assert process.returncode == 0, out
    return out


def table(folder: Path) -> pd.DataFrame:
    return without_provenance(Store(folder / "results" / "runs").table())


def trained(folder: Path) -> pd.DataFrame:
    lines = (folder / "trained").read_text().splitlines()
    return pd.DataFrame([line.split() for line in lines], columns=["address", "process"])


@pytest.fixture(scope="module")
def alone(tmp_path_factory) -> pd.DataFrame:
    folder = tmp_path_factory.mktemp("alone")
    finish(start(folder, 1, workers=1))
    assert len(trained(folder)) == 8
    return table(folder)


@pytest.mark.parametrize("workers", [1, 2])
def test_every_network_is_trained_once_and_by_both(tmp_path, alone, workers):
    processes = [start(tmp_path, 2, workers) for _ in range(2)]
    for process in processes:
        finish(process)
    found = trained(tmp_path)
    assert sorted(found["address"]) == sorted(alone["address"])
    assert found["process"].nunique() >= 2
    pd.testing.assert_frame_equal(table(tmp_path), alone)


def test_what_a_killed_command_had_begun_the_other_trains(tmp_path, alone):
    """Its stacks are nobody's as soon as it is dead."""
    victim, other = (start(tmp_path, 2, workers=1) for _ in range(2))
    while not (tmp_path / "trained").exists():
        assert victim.poll() is None, victim.communicate()
    victim.kill()
    victim.communicate()
    finish(other)
    pd.testing.assert_frame_equal(table(tmp_path), alone)
