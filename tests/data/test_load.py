"""One way to the data: loaded once, kept, and each network of a stack with its own."""

from collections import Counter

import pytest
import torch

from bnstudy import data
from bnstudy.config import DataConfig


@pytest.fixture
def read(monkeypatch):
    """How often the loader of each data set ran; nothing is kept from before."""
    monkeypatch.setattr(data, "_kept", type(data._kept)())
    count, locate = Counter(), data.locate

    def counted(name, key):
        count[name] += 1
        return locate(name, key)

    monkeypatch.setattr(data, "locate", counted)
    return count


def digits(**settings) -> DataConfig:
    return DataConfig(name="digits", train_size=40, **settings)


def same(one: data.Dataset, other: data.Dataset) -> bool:
    pairs = zip(one.parts(), other.parts(), strict=True)
    return all(torch.equal(x, u) and torch.equal(y, v) for (_, x, y), (_, u, v) in pairs)


def test_a_pool_is_read_once_and_the_last_few_are_kept(read):
    data.load(digits())
    data.load(digits(), seed=1)
    data.load(DataConfig(name="digits"))
    assert read.total() == 1
    others = [digits(split_seed=s) for s in (1, 2, 3)]
    for cfg in others:
        data.load(cfg)
    data.load(digits())
    assert read.total() == 4, "the last used stays longest"
    data.load(digits(split_seed=4))
    assert len(data._kept) == data.KEPT
    data.load(others[0])
    assert read.total() == 6, "the one not used for longest was given up"


def test_distorted_images_are_made_of_one_pool(read):
    for contrast in (0.5, 1.0):
        for seed in range(6):
            data.load(digits(contrast=contrast), seed=seed)
    assert read.total() == 1


def test_what_is_kept_is_what_would_be_read(read):
    kept = [data.load(digits(contrast=0.5)) for _ in range(2)][1]
    data._kept.clear()
    assert same(kept, data.load(digits(contrast=0.5)))


def test_a_changed_file_is_read_again(read, tmp_path):
    path = tmp_path / "text.txt"
    path.write_text("abcd" * 200)
    cfg = DataConfig(name="text", path=str(path), length=10)
    assert data.load(cfg).vocabulary == 4
    path.write_text("abcde" * 200)
    assert data.load(cfg).vocabulary == 5


KINDS = {
    "images": digits(),
    "contrast": digits(contrast=1.0, pixel_noise=0.1),
    "noise at every step": digits(pixel_noise=0.1, noise_every_step=True),
    "pilots": digits(test_part="validation"),
    "rows": digits(sequence="rows", min_length=3),
    "made": DataConfig(name="adding", length=8, train_size=40),
    "text": DataConfig(name="text", train_size=40, min_length=20),
    "pilots on sequences": DataConfig(
        name="digits", sequence="pixels", train_size=600, test_part="validation"
    ),
    "pilots on made sequences": DataConfig(
        name="copy", length=30, train_size=40, test_part="validation"
    ),
    "pilots on text": DataConfig(name="text", test_part="validation"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_network_of_a_stack_sees_the_draws_of_its_own_seed(kind):
    """Also when seeds repeat, as cells of one stack have them: a column for each network."""
    cfg, seeds = KINDS[kind], (0, 1, 0)
    stack = data.load_many([(cfg, seed) for seed in seeds])
    index = torch.arange(7)[:, None].expand(-1, 3)
    for part in data.PARTS:
        x, y = stack.take(part, index)
        for network, seed in enumerate(seeds):
            alone = data.load(cfg, seed=seed)
            assert same(stack.of(network), alone)
            assert torch.equal(x[:, network], getattr(alone, f"{part}_x")[:7])
            assert torch.equal(y[:, network], getattr(alone, f"{part}_y")[:7])
            assert torch.equal(stack.labels(part, network), getattr(alone, f"{part}_y"))
            assert stack.size(part) == len(getattr(alone, f"{part}_y"))
    assert not torch.equal(stack.of(0).train_x, stack.of(1).train_x)


@pytest.mark.parametrize("kind", [k for k in KINDS if "pilots" not in k])
def test_the_test_part_is_that_of_every_seed(kind):
    first, second = (data.load(KINDS[kind], seed=seed) for seed in (0, 1))
    assert torch.equal(first.test_y, second.test_y)
    if not (KINDS[kind].contrast or KINDS[kind].pixel_noise):  # then constants are each seed's own
        assert torch.equal(first.test_x, second.test_x)


@pytest.mark.parametrize("kind", KINDS)
def test_what_validates_does_not_train(kind):
    d = data.load(KINDS[kind].model_copy(update={"train_size": None}))
    train, val = (set(map(tuple, x.flatten(1).tolist())) for x in (d.train_x, d.val_x))
    assert len(train & val) == 0


def test_every_network_of_a_stack_sees_the_data_of_its_own_config(read):
    """Also when the first network's data are not the others'."""
    loud, quiet = digits(contrast=1.0), digits()
    stack = data.load_many([(quiet, 0), (loud, 0), (quiet, 0)])
    for network, cfg in enumerate([quiet, loud, quiet]):
        assert same(stack.of(network), data.load(cfg))
        assert stack.of(network).info == data.load(cfg).info
    assert len(stack.train_x) == 2 * 40, "each distinct data set once"


def test_twelve_seeds_share_one_pool(read):
    """No copies: an index table for each, on whatever device."""
    stack = data.load_many([(DataConfig(name="digits"), seed) for seed in range(12)])
    assert stack.train_x is stack.val_x
    assert len(stack.train_x) == 1397
    assert len(stack.test_x) == 400
    moved = stack.to("meta")
    assert moved.train_x is moved.val_x
    assert {t.device.type for t in (moved.test_x, *moved.rows.values())} == {"meta"}
