"""One way to the data: loaded once, kept, and each network of a stack with its own."""

import pytest
import torch

from bnstudy import data
from bnstudy.config import DataConfig


@pytest.fixture
def made(monkeypatch):
    """The configs that were built, in order; nothing is kept from before."""
    monkeypatch.setattr(data, "_kept", type(data._kept)())
    built, make = [], data.make

    def counted(cfg, cache_dir=None):
        built.append(cfg)
        return make(cfg, cache_dir)

    monkeypatch.setattr(data, "make", counted)
    return built


def digits(**settings) -> DataConfig:
    return DataConfig(name="digits", train_size=40, **settings)


def test_a_data_set_is_built_once_and_the_last_few_are_kept(made):
    first = data.load(digits())
    assert data.load(digits()) is first
    others = [digits(contrast=c) for c in (0.1, 0.2, 0.3)]
    for cfg in others:
        data.load(cfg)
    assert data.load(digits()) is first, "the last used stays longest"
    data.load(digits(contrast=0.4))
    assert len(made) == 5
    assert len(data._kept) == data.KEPT
    data.load(others[0])
    assert len(made) == 6, "the one not used for longest was given up"


def test_what_is_kept_is_what_would_be_built(made):
    kept = [data.load(digits(contrast=0.5)) for _ in range(2)][1]
    fresh = data.make(digits(contrast=0.5))
    for (_, x, y), (_, other_x, other_y) in zip(kept.parts(), fresh.parts(), strict=True):
        assert torch.equal(x, other_x)
        assert torch.equal(y, other_y)


def test_a_changed_file_is_read_again(made, tmp_path):
    path = tmp_path / "text.txt"
    path.write_text("abcd" * 200)
    cfg = DataConfig(name="text", path=str(path), length=10)
    assert data.load(cfg).vocabulary == 4
    path.write_text("abcde" * 200)
    assert data.load(cfg).vocabulary == 5


def test_every_network_of_a_stack_sees_the_data_of_its_own_config(made):
    """Also when the first network's data are not the others': a column for each network."""
    loud, quiet = digits(contrast=1.0), digits()
    stack = data.load_many([quiet, loud, quiet])
    assert len(made) == 2
    assert stack.members == 2
    index = torch.arange(7)[:, None].expand(-1, 3)
    x, y = stack.take("train", index)
    for network, cfg in enumerate([quiet, loud, quiet]):
        alone = data.make(cfg)
        assert torch.equal(x[:, network], alone.train_x[:7])
        assert torch.equal(y[:, network], alone.train_y[:7])
        assert torch.equal(stack.labels("train", network), alone.train_y)
    assert not torch.equal(x[:, 0], x[:, 1])


def test_networks_with_one_config_share_one_data_set(made):
    stack = data.load_many([digits()] * 3)
    assert stack is data.load(digits())
    assert stack.members == 1
    assert len(made) == 1
