"""fold runs no code that only a record names."""

from pathlib import Path

from shell import bnstudy_, own_folder

from bnstudy.store import Store

__all__ = ["own_folder"]  # a fixture that acts by being here
OWN = """
import torch
from pathlib import Path
from bnstudy.data import Dataset
Path("ran").touch()
def load(config):
    x = torch.rand(60, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    y = torch.arange(60) % 10
    return Dataset(x, y, x[:20], y[:20], x[20:40], y[20:40], num_classes=10)
"""
TRAIN = ["train", "data=custom", "data.entry=fold_own_data:load", "model=mlp", "model.hidden=[6]",
         "train.steps=4", "train.batch_size=8", "seeds=1", "tracker.mode=disabled",
         "workers=1"]  # fmt: skip


def test_fold_runs_a_record_s_code_only_when_asked_and_unchanged(tmp_path):
    module = tmp_path / "fold_own_data.py"
    module.write_text(OWN)
    trained = bnstudy_(*TRAIN)
    assert trained.exit_code == 0, trained.stderr
    address = Store("results/runs").table()["address"][0]
    Path("ran").unlink()
    refused = bnstudy_("fold", address)
    assert refused.exit_code == 2
    assert "data.entry=fold_own_data:load" in refused.stderr
    assert "--run-entries" in refused.stderr
    assert not Path("ran").exists()
    asked = bnstudy_("fold", address, "--run-entries")
    assert asked.exit_code == 0, asked.stderr
    assert "1 folded" in asked.stdout
    module.write_text(OWN + "\n# changed\n")
    changed = bnstudy_("fold", address, "--run-entries")
    assert changed.exit_code == 2
    assert "does not fit what is there now" in changed.stderr
