"""A person's own code from one process to the next: found again, known by its content."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from shell import own_folder

__all__ = ["own_folder"]  # a fixture that acts by being here
pytestmark = pytest.mark.slow  # every command is a process that imports torch

SMALL = ["data.train_size=40", "train.steps=3", "train.batch_size=8", "seeds=2",
         "tracker.mode=disabled", "workers=2"]  # fmt: skip
HELPER = "scale = 1.0\n"
NORM = """
import own_helper
from torch import nn
class Own(nn.Module):
    def forward(self, x):
        return x * own_helper.scale
def factory(channels):
    return Own()
"""
MODEL = """
from torch import nn
from own_helper import scale
class Net(nn.Sequential):
    def forward(self, x):
        return super().forward(x * scale)
def build(config, shape, num_classes, norm):
    return Net(nn.Flatten(), nn.Linear(64, 6), norm(6), nn.Linear(6, num_classes))
"""
DATA = """
import numpy as np, torch
from bnstudy.data import Dataset
from own_helper import scale
def load(config):
    x = torch.rand(60, 1, 8, 8, generator=torch.Generator().manual_seed(0)) * scale
    y = torch.arange(60) % 10
    return Dataset(x, y, x[:20], y[:20], x[20:40], y[20:40], num_classes=10)
"""
PARTS = {
    "norm": ("model=mlp norm=custom norm.entry=own_part:factory", NORM),
    "model": ("model=custom model.entry=own_part:build", MODEL),
    "data": ("model=mlp data=custom data.entry=own_part:load", DATA),
}


def command(*words: str) -> str:
    """What `bnstudy train` prints in a process of its own, as a person has it."""
    done = subprocess.run(
        [sys.executable, "-P", "-c", "from bnstudy.cli import main; main()", "train", *words,
         *SMALL],
        capture_output=True, text=True, check=False, timeout=300,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("part", PARTS)
def test_a_changed_helper_is_another_experiment(part):
    """Also: a module in the working directory is found again by a second process."""
    words, text = PARTS[part]
    Path("own_part.py").write_text(text)
    Path("own_helper.py").write_text(HELPER)
    assert "trained  2 models" in command(*words.split())
    assert "nothing is missing" in command(*words.split())
    Path("own_helper.py").write_text("scale = 3.0\n")
    assert "trained  2 models" in command(*words.split())


def test_a_changed_file_that_a_loader_reads_is_another_experiment():
    reads = "torch.from_numpy(np.load('scale.npy'))"
    Path("own_helper.py").write_text(HELPER)
    Path("own_part.py").write_text(DATA.replace("* scale", f"* {reads}"))
    np.save("scale.npy", np.ones(1, np.float32))
    words = PARTS["data"][0].split()
    assert "trained  2 models" in command(*words)
    assert "nothing is missing" in command(*words)
    np.save("scale.npy", np.full(1, 2, np.float32))
    assert "trained  2 models" in command(*words)


def test_workers_of_their_own_find_the_modules_of_the_working_directory():
    """Two stacks in two processes, as one norm and one model of the person's own."""
    Path("own_part.py").write_text(PARTS["norm"][1])
    Path("own_helper.py").write_text(HELPER)
    words = PARTS["norm"][0].split()
    assert "trained  4 models" in command("-m", *words, "train.precision=float32,bf16")
