"""What a process imports for the work at hand, seen in the processes themselves.

Lists of modules, not times: times are a benchmark (`bnstudy bench start`).
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

# a second and more each, and none of them is needed to train
DEAR = {"torch._dynamo", "torch._inductor", "sympy", "sklearn", "scipy", "pandas", "matplotlib",
        "seaborn", "torchvision", "statsmodels"}  # fmt: skip
SPIED = """
import sys
from bnstudy.sweep import launchers
launchers.WORKER = "spy_worker:run_pack"
from bnstudy.cli import main
main(sys.argv[1:])
"""
SMALL = ["scale=smoke", "train.steps=2", "seeds=1", "data.train_size=40", "results_dir=results"]


def spied(folder: Path, *words: str) -> list[tuple[set[str], set[str]]]:
    """(modules at its beginning, at its end) of each worker of a command."""
    path = os.pathsep.join(
        [str(Path(__file__).with_name("support")), os.environ.get("PYTHONPATH", "")]
    )
    done = subprocess.run(
        [sys.executable, "-c", SPIED, *words, *SMALL], cwd=folder, capture_output=True, text=True,
        env={**os.environ, "PYTHONPATH": path}, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = [json.loads(p.read_text()) for p in (folder / "results").rglob("pack-*.modules")]
    return [(set(begin), set(end)) for begin, end in found]


@pytest.mark.parametrize("tracker", ["disabled", pytest.param("offline", marks=pytest.mark.slow)])
def test_a_worker_imports_nothing_that_training_does_not_need(tmp_path, tracker):
    words = ["train", "-m", "model=mlp,lenet", "norm=batch,group", "train.batch_size=4"]
    (worker,) = spied(tmp_path, *words, f"tracker.mode={tracker}", "workers=1")
    begin, end = worker
    assert not end & DEAR
    assert ("wandb" in end) == (tracker == "offline")
    assert "torch" in begin, "the list is that of a worker"


def test_forked_workers_take_over_torch_and_begin_with_nothing_dear(tmp_path):
    """What a worker has at its beginning is what the planner had: a study is judged elsewhere."""
    workers = spied(tmp_path, "study", "batch_size", "tracker.mode=disabled", "workers=2",
                    "model=resnet", "train.batch_size=4,32")  # fmt: skip
    assert len(workers) == 2
    for begin, end in workers:
        assert {"torch", "bnstudy.engine.train", "bnstudy.work.trainer"} <= begin
        assert not begin & {*DEAR, "pyarrow", "wandb"}
        assert not end & DEAR


ADDRESSES = """
import sys
from bnstudy.cli import main
try:
    main(sys.argv[1:])
except SystemExit as end:
    assert not end.code, end.code
print("MODULES", *sys.modules)
"""


@pytest.mark.slow
def test_what_reads_results_needs_no_torch(tmp_path):
    spied(tmp_path, "study", "batch_size", "tracker.mode=disabled", "workers=2")
    words = ["results_dir=results"]
    for command in (["ls"], ["export", "--csv", "t.csv"], ["report"],
                    ["study", "batch_size", "tracker.mode=disabled", *SMALL[:-1]]):  # fmt: skip
        done = subprocess.run(
            [sys.executable, "-c", ADDRESSES, *command, *words], cwd=tmp_path,
            capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        modules = set(done.stdout.rpartition("MODULES")[2].split())
        assert not modules & {"torch", "wandb", "sklearn", "torchvision"}, command
        if command[0] == "study":
            assert "nothing is missing" in done.stdout
            assert not modules & {"matplotlib", "seaborn", "scipy"}, "nothing was drawn again"
