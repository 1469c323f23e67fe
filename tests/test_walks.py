"""Four first days, as commands: what README and docs say, typed word for word in empty folders."""

import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

pytestmark = pytest.mark.slow
SMALL = ["data.train_size=40", "train.steps=4", "train.batch_size=8", "seeds=2",
         "tracker.mode=disabled"]  # fmt: skip


@pytest.fixture
def shell(tmp_path):
    """Runs a command in the person's folder; the exit code has to be the expected one."""
    root = str(Path(__file__).parents[1])
    environment = {**os.environ, "PYTHONPATH": root}
    environment.pop("BNSTUDY_DATA", None)

    def run(*words: str, code: int = 0, program: tuple[str, ...] = ("-m", "bnstudy")) -> str:
        done = subprocess.run(
            [sys.executable, *program, *words], cwd=tmp_path, env=environment,
            capture_output=True, text=True, timeout=300, check=False,
        )  # fmt: skip
        assert done.returncode == code, (words, done.stdout, done.stderr)
        assert "Traceback" not in done.stderr
        return done.stdout + done.stderr

    return run


def test_a_student_reproduces_a_figure(shell, tmp_path):
    assert "batch_size" in shell("study")
    words = ["study", "batch_size", "scale=smoke", "seeds=2", "tracker.mode=disabled"]
    assert "missing" in shell(*words, "--dry-run")
    made = shell(*words)
    figure = next(line for line in made.splitlines() if line.endswith("figure.png"))
    assert (tmp_path / figure).stat().st_size > 10_000
    assert "nothing is missing" in shell(*words)
    shell("report")
    assert (tmp_path / "results/runs/report.html").exists()
    shell("export", "--csv", "table.csv", "batch_size", "scale=smoke", "seeds=2")
    assert len(pd.read_csv(tmp_path / "table.csv")) == 16
    assert "Did you mean 'batch_size'" in shell("study", "batch_sise", code=2)


def test_an_engineer_compares_norms_in_a_model_of_their_own(shell, tmp_path):
    (tmp_path / "my.py").write_text(
        "from torch import nn\n"
        "from layers import block\n\n\n"
        "def build(config, shape, num_classes, norm):\n"
        "    return nn.Sequential(block(shape[0], 6, norm), nn.Flatten(),\n"
        "                         nn.Linear(6 * shape[1] * shape[2], num_classes))\n"
    )
    (tmp_path / "layers.py").write_text(
        "from torch import nn\n\n\n"
        "def block(inputs, outputs, norm):\n"
        "    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, padding=1), norm(outputs),\n"
        "                         nn.ReLU())\n"
    )
    words = ["compare", "norm=batch,group,none", "model=custom", "model.entry=my:build", *SMALL]
    assert "group" in shell(*words)
    assert "nothing is missing" in shell(*words)
    helper = tmp_path / "layers.py"
    helper.write_text(helper.read_text().replace("nn.ReLU()", "nn.Tanh()"))
    assert "missing  6 models" in shell(*words, "--dry-run"), (
        "a helper's change is a new experiment"
    )
    helper.write_text(helper.read_text().replace("norm(outputs)", "nn.Identity()"))
    assert "norm" in shell(*words, code=2)


LIBRARY = """
import torch
from torch import nn
from bnstudy.norms import BatchNorm, calibrate, fold, make, swap_norms, synchronize

net = nn.Sequential(
    nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(288, 5)
)
try:
    calibrate(net, [torch.randn(4, 3, 8, 8)])
    raise SystemExit("torch's own batch norm was passed by in silence")
except ValueError as error:
    assert "swap_norms" in str(error), error
print(swap_norms(net, "batch"))
calibrate(net, [torch.randn(16, 3, 8, 8) for _ in range(3)])
print(fold(net.eval(), torch.randn(4, 3, 8, 8)))
assert make("renorm")(8) is not None
layer = BatchNorm(8, affine=False, device="cpu", dtype=torch.float64)
assert layer(torch.randn(4, 8, dtype=torch.float64)).shape == (4, 8)
print("done")
"""


def test_a_library_user_changes_the_norms_of_a_model(shell):
    assert shell(program=("-c", LIBRARY)).strip().endswith("done")


def test_a_lab_shares_a_folder_and_analyses_elsewhere(shell, tmp_path):
    words = ["train", "-m", "model=mlp", "norm=batch,group,layer", "save_weights=false", *SMALL]
    command = [sys.executable, "-m", "bnstudy", *words]
    root = str(Path(__file__).parents[1])
    both = [
        subprocess.Popen(
            command, cwd=tmp_path, env={**os.environ, "PYTHONPATH": root},
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )
        for _ in range(2)
    ]  # fmt: skip
    for process in both:
        text, _ = process.communicate(timeout=300)
        assert process.returncode == 0, text
    listed = shell("ls")
    assert "3 cells, 6 runs" in listed
    assert "2 cells" in shell("ls", "norm=group,layer")
    assert "--yes" in shell("rm", "norm=group,layer", code=2)
    shell("rm", "norm=group,layer", "--yes")
    assert "missing  4 models" in shell(*words, "--dry-run")
    shell("export", "--csv", "t.csv", "--parquet", "t.parquet")
    assert len(pd.read_parquet(tmp_path / "t.parquet")) == 2
