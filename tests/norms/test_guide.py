"""The guide to the norms: its code runs, its tables hold; typical use passes a strict checker."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

import bnstudy
import bnstudy.norms
from bnstudy.norms import (
    NORMS,
    PRESETS,
    BatchNorm,
    GroupNorm,
    InstanceNorm,
    LayerNorm,
    PerPosition,
    RMSNorm,
)

ROOT = Path(__file__).parents[2]
GUIDE = (ROOT / "docs" / "norms.md").read_text()


@pytest.mark.filterwarnings("ignore:.torch.jit:FutureWarning")
def test_every_block_of_code_runs_in_order(capsys):
    blocks = re.findall(r"```python\n(.*?)```", GUIDE, re.DOTALL)
    assert len(blocks) == GUIDE.count("```") // 2 > 5
    names = {}
    for number, block in enumerate(blocks):
        exec(compile(block, f"block {number}", "exec"), names)
    assert "swap_norms(model, 'batch')" in capsys.readouterr().out


def test_the_table_of_norms_is_complete_and_names_what_there_is():
    table = GUIDE.split("## Choose a norm")[1].split("##")[0]
    rows = re.findall(r"^\| `(\w+)` \| `(\w+)`", table, re.MULTILINE)
    assert {name for name, _ in rows} == {*NORMS, *PRESETS}
    for name, kind in rows:
        norm = NORMS[PRESETS[name][0] if name in PRESETS else name]
        assert getattr(bnstudy.norms, kind) is norm


@pytest.mark.parametrize(
    ("theirs", "ours", "shape"),
    [
        (nn.BatchNorm1d(6), BatchNorm(6), (4, 6)),
        (nn.BatchNorm2d(6), BatchNorm(6), (4, 6, 3, 2)),
        (nn.GroupNorm(2, 6), GroupNorm(6, num_groups=2), (4, 6, 3, 2)),
        (nn.InstanceNorm2d(6), InstanceNorm(6, affine=False), (4, 6, 3, 2)),
        (nn.LayerNorm(6), LayerNorm(6), (4, 6)),
        (nn.LayerNorm(6), PerPosition(LayerNorm(6)), (4, 3, 2, 6)),
        (nn.RMSNorm(6, eps=1e-5), PerPosition(RMSNorm(6, affine="gamma")), (4, 3, 6)),
        (nn.LayerNorm((6, 3, 2)), LayerNorm(6), (4, 6, 3, 2)),
    ],
    ids=str,
)
def test_what_drops_in_computes_the_same(theirs, ours, shape):
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0)).double()
    for training in (True, False):
        results = [layer.double().train(training)(x) for layer in (ours, theirs)]
        torch.testing.assert_close(*results, rtol=1e-10, atol=1e-10)


USE = '''
"""Norms in somebody's own model."""

import torch
from torch import Tensor, nn

from bnstudy.norms import (
    BatchNorm,
    GroupNorm,
    Norm,
    StepBatchNorm,
    Swaps,
    audit,
    batch_norms,
    calibrate,
    evaluation_mode,
    fold,
    freeze,
    make,
    swap_norms,
    synchronize,
)


class Block(nn.Module):
    def __init__(self, channels: int, norm: str = "batch", group_size: int | None = None) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3)
        self.first: Norm = make(norm)(channels)
        self.second = BatchNorm(channels, 1e-3, momentum=None, group_size=group_size)
        self.steps = StepBatchNorm(channels, time_steps=3)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.conv(x)
        y = self.second(self.first(y))
        return y + self.steps(y.mean((2, 3)), 0)[:, :, None, None]


def use(model: nn.Module, batches: list[Tensor]) -> float:
    report: Swaps = swap_norms(model, "group", channels_per_group=8, layers="layer4.*")
    names: list[str] = [swap.name for swap in report.replaced]
    report.undo()
    swap_norms(model, lambda channels: GroupNorm(channels, num_groups=1), per_position=True)
    swap_norms(model, "batch")
    synchronize(freeze(calibrate(model.eval(), batches)))
    with evaluation_mode(model, "batch", 8):
        model(batches[0])
    mean = next(iter(batch_norms(model).values())).running_mean
    for finding in audit(nn.BatchNorm2d):
        names.append(finding.check)
    return fold(model, batches[0]).max_difference + (0.0 if mean is None else mean.sum().item())


use(Block(8), [torch.zeros(2, 8, 5, 5)])
'''


@pytest.mark.slow
def test_typical_use_passes_mypy_strict(tmp_path):
    assert Path(bnstudy.__file__).with_name("py.typed").exists()
    own = tmp_path / "own.py"
    own.write_text(USE)
    # bnstudy's own lines are checked by the project's settings, not by the user's
    options = ["--strict", "--config-file=", "--follow-imports=silent"]
    options.append(f"--cache-dir={tmp_path / 'cache'}")
    command = [sys.executable, "-m", "mypy", *options, str(own)]
    environment = os.environ | {"MYPYPATH": str(Path(bnstudy.__file__).parents[1])}
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    # what it would not let pass
    own.write_text(USE.replace('layers="layer4.*"', "layers=4"))
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, check=False)
    assert done.returncode == 1
