"""What lies outside a config and decides its result: filled in at planning, held to in training."""

import itertools

import pytest
import torch

from bnstudy.config import Config
from bnstudy.errors import UserError
from bnstudy.sweep.protocol import Execution
from bnstudy.work.sources import resolve
from bnstudy.work.trainer import Trainer

NAMES = (f"own_sources_{i}" for i in itertools.count())
NORM = """
import @_helper
from torch import nn
def factory(channels):
    return nn.LayerNorm(channels)
"""


@pytest.fixture
def part(tmp_path, monkeypatch):
    """A config with a norm of one's own, its file, and that of its helper."""
    monkeypatch.syspath_prepend(tmp_path)
    name = next(NAMES)  # a new one each time: Python remembers modules
    own, helper = tmp_path / f"{name}.py", tmp_path / f"{name}_helper.py"
    own.write_text(NORM.replace("@", name))
    helper.write_text("")
    parts = {
        "model": {"name": "mlp", "hidden": (6,)},
        "norm": {"name": "custom", "entry": f"{name}:factory"},
        "data": {"train_size": 40},
        "train": {"batch_size": 8, "steps": 1},
    }
    return Config.model_validate(parts), own, helper


def trained(config: Config, tmp_path) -> list:
    execution = Execution(results_dir=str(tmp_path))
    return Trainer(execution, tmp_path, torch.device("cpu")).train([config]).history[0]


def test_the_source_of_ones_own_part_is_filled_in_and_is_the_address(part, tmp_path):
    config, _, helper = part
    (first,) = resolve([config], tmp_path)
    assert len(first.norm.source) == 16
    assert resolve([config], tmp_path)[0].address == first.address
    helper.write_text("# changed")
    assert resolve([config], tmp_path)[0].address != first.address


def test_nothing_trains_with_another_source_than_was_planned(part, tmp_path):
    """Else a result would be kept under the address of other code."""
    config, _, helper = part
    (planned,) = resolve([config], tmp_path)
    helper.write_text("# changed before the worker began")
    with pytest.raises(UserError, match=r"norm\.entry=own_.* has changed since .* planned"):
        trained(planned, tmp_path)


def test_what_changes_while_it_trains_is_of_the_next_command(part, tmp_path):
    config, own, _ = part
    (planned,) = resolve([config], tmp_path)
    trained(planned, tmp_path)
    own.write_text("1/0")
    assert trained(planned.model_copy(update={"seed": 1}), tmp_path)
