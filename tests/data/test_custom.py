"""Data of one's own."""

import itertools

import pytest
import torch

from bnstudy import data
from bnstudy.config import DataConfig
from bnstudy.errors import UserError

NAMES = (f"own_data_{i}" for i in itertools.count())
GOOD = """
import torch
from bnstudy.data import Dataset
def build(cfg):
    x, y = torch.rand(30, 2, 4, 4, generator=torch.Generator().manual_seed(0)), torch.arange(30) % 3
    return Dataset(x, y, x[:9], y[:9], x[:6], y[:6], 3, {"note": "mine"})
"""


@pytest.fixture
def module(tmp_path, monkeypatch):
    """Writes a module into the working directory and returns a DataConfig for its `build`."""
    monkeypatch.chdir(tmp_path)

    def write(text, **settings):
        name = next(NAMES)  # a new one each time: Python remembers modules
        (tmp_path / f"{name}.py").write_text(text)
        return DataConfig(name="custom", entry=f"{name}:build", **settings)

    return write


def test_an_entry_in_the_working_directory_is_loaded_and_treated_like_any_data(module):
    d = data.load(module(GOOD, train_size=12))
    assert d.info["sizes"] == {"train": 12, "val": 9, "test": 6}
    assert torch.bincount(d.train_y).tolist() == [4, 4, 4]
    assert d.info["note"] == "mine"
    whole = data.load(module(GOOD))
    both = torch.cat([whole.train_x, whole.val_x])  # the pool; its constants, whatever trains
    assert both.mean((0, 2, 3)).abs().max() < 1e-5
    assert d.info["mean"] == whole.info["mean"]


def test_validation_of_ones_own_is_every_seeds_and_the_training_subset_follows_the_seed(module):
    cfg = module(GOOD, train_size=12)
    first, second = (data.load(cfg, seed=seed) for seed in (0, 1))
    assert torch.equal(first.val_x, second.val_x)
    assert torch.equal(first.test_x, second.test_x)
    assert not torch.equal(first.train_x, second.train_x)
    raw = torch.rand(30, 2, 4, 4, generator=torch.Generator().manual_seed(0))
    mean, std = (torch.tensor(first.info[k])[:, None, None] for k in ("mean", "std"))
    torch.testing.assert_close(first.val_x * std + mean, raw[:9])


def test_the_source_is_part_of_the_configuration(module):
    first, again = data.resolve(module(GOOD)), data.resolve(module(GOOD))
    assert len(first.source) == 16
    assert first.source == again.source
    assert data.resolve(module(GOOD + "# changed\n")).source != first.source


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1/0", r"importing 'own_data_\d+' failed at .*\.py:1: ZeroDivisionError: division by"),
        ("def biuld(cfg): pass", "has no 'build'. Did you mean 'biuld'"),
        ("\ndef build(cfg): return [][1]", r"failed at .*own_data_\d+\.py:2: IndexError"),
        ("build = 3", "is a int, not a function"),
        (
            "def build(cfg): return 3",
            "at .*:1 returned a value of type int; it must return a bn",
        ),
        (GOOD.replace("(30, 2, 4, 4", "(30, 4"), r"shape \(n, C, H, W\), sequences .*\(30, 4\)"),
        (GOOD.replace("y[:9]", "y[:8]"), r"val_y must be one label for each .*\(9\), given \(8,\)"),
        (GOOD.replace("y, x[:9]", "y + 1, x[:9]"), "train_y must be whole numbers from 0 to 2"),
        (GOOD.replace("x[:6], y", "x[:6] / 0, y"), "test_x holds NaN or infinity"),
        (GOOD.replace("x[:9],", "x[:9, :1],"), "they must agree"),
    ],
)
def test_what_is_wrong_with_an_entry_is_said(module, text, message):
    with pytest.raises(ValueError, match=message):
        data.load(module(text))


def test_a_module_that_does_not_exist_is_a_message():
    with pytest.raises(ValueError, match="importing 'no_such_module' failed"):
        data.resolve(DataConfig(name="custom", entry="no_such_module:build"))


SEQUENCES = """
import torch
from bnstudy.data import Dataset
def build(cfg):
    x = torch.rand(30, 3, 5, generator=torch.Generator().manual_seed(0))
    y = (torch.arange(30)[:, None] + torch.arange(5)) % 3
    x[:, 2], x[4, 2, 3:], y[4, 3:] = 1, 0, -100
    # here
    return Dataset(x, y, x[:9], y[:9], x[:6], y[:6], 3)
"""


def test_sequences_of_ones_own_come_as_they_are(module):
    d = data.load(module(SEQUENCES, train_size=7))
    assert d.shape == (3, 5)
    assert len(d.train_y) == 7
    assert (d.test_y[4] == -100).tolist() == [False, False, False, True, True]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("x[2, 2] = 0; y[2] = -100", "train_x: sequence 2 has length 0"),
        ("x[2, 2, 1] = 0; y[2, 1] = -100", "padding must lie at the end"),
        ("y[4, 4] = 1", "must be -100 at padded steps"),
        ("y[3, 3] = 3", "from 0 to 2 or -100, given 0 to 3"),
        ("y = y[:, 0]", r"whole numbers of shape \(30, 5\)"),
        ("x[0, 0, 0] = float('nan')", "must be finite"),
    ],
)
def test_sequences_that_are_none_are_refused(module, line, message):
    with pytest.raises(UserError, match=message):
        data.load(module(SEQUENCES.replace("# here", line)))


def test_what_changes_images_is_refused_for_sequences(module):
    with pytest.raises(UserError, match=r"data\.contrast=0\.5 changes images"):
        data.load(module(SEQUENCES, contrast=0.5))


def test_the_fingerprint_is_that_of_the_tensors(module):
    """Values, dtypes, shapes and the number of classes; not the source, which has its own hash."""
    first = data.resolve(module(GOOD)).fingerprint
    assert len(first) == 16
    assert data.resolve(module(GOOD + "# changed\n")).fingerprint == first
    others = [
        GOOD.replace("manual_seed(0)", "manual_seed(1)"),
        GOOD.replace("% 3", "% 3 % 2"),
        GOOD.replace("x[:6], y[:6]", "x[:5], y[:5]"),
        GOOD.replace("y[:6], 3", "y[:6], 4"),
    ]
    found = {data.resolve(module(text)).fingerprint for text in others}
    assert len(found | {first}) == 5


COUNTED = GOOD.replace(
    "def build(cfg):", "calls = 0\ndef build(cfg):\n    global calls; calls += 1"
)


def test_the_loader_runs_once_for_the_fingerprint_and_the_data(module):
    import sys

    cfg = module(COUNTED)
    planned = data.resolve(cfg)
    data.resolve(cfg)
    assert torch.equal(data.load(planned).train_x, data.load(cfg).train_x)
    assert sys.modules[cfg.entry.partition(":")[0]].calls == 1


def test_other_tensors_than_were_planned_are_refused(module, monkeypatch):
    planned = data.resolve(module(GOOD.replace(".manual_seed(0)", "")))
    monkeypatch.setattr(data, "_fingerprints", {})  # as in a worker's process
    planned = planned.model_copy(update={"fingerprint": "0123456789abcdef"})
    with pytest.raises(UserError, match=r"data.fingerprint=0123.* random numbers without a seed"):
        data.load(planned)


def test_tall_features_are_not_taken_for_images_with_channels_last(module):
    """Two, three or four columns of several channels, or one of images that are not square."""
    for shape in ("16, 4, 4", "12, 50, 1", "8, 3, 8"):
        data.load(module(GOOD.replace("2, 4, 4", shape)))
    with pytest.raises(UserError, match=r"\(n, H, W, C\)"):
        data.load(module(GOOD.replace("2, 4, 4", "8, 6, 3")))
