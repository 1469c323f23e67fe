"""Loss and metrics of a task, and what a diverged network counts as."""

import math

import pytest
import torch
from toy_training import CPU, config

from bnstudy import data as data_of
from bnstudy.config import IGNORED, Config
from bnstudy.engine.stack import make_stack
from bnstudy.engine.tasks import CLASSIFICATION
from bnstudy.engine.train import train
from bnstudy.work import build as run


def labelled_steps(n=12, networks=2, steps=5, classes=4):
    g = torch.Generator().manual_seed(0)
    logits = torch.randn(n, networks, steps, classes, generator=g)
    y = torch.randint(0, classes, (n, networks, steps), generator=g)
    return logits, y.masked_fill(torch.rand(y.shape, generator=g) < 0.4, IGNORED)


def test_every_labelled_step_weighs_the_same_and_others_nothing():
    logits, y = labelled_steps()
    loss, error = CLASSIFICATION.score(logits, y)
    for i in range(2):
        asked = y[:, i] != IGNORED
        own, wanted = logits[:, i][asked], y[:, i][asked]
        mean = torch.nn.functional.cross_entropy(own, wanted)
        assert loss[i] == pytest.approx(float(mean), rel=1e-6)
        assert error[i] == pytest.approx(float((own.argmax(-1) != wanted).float().mean()), rel=1e-6)


@pytest.mark.parametrize("sequences", [False, True])
def test_how_a_part_is_cut_into_pieces_changes_nothing(sequences):
    logits, y = labelled_steps()
    if not sequences:
        logits, y = logits[:, :, 0], y[:, :, 0].clamp(min=0)
    whole = CLASSIFICATION.score(logits, y)
    pieces = zip(logits.split(5), y.split(5), strict=True)
    for found, expected in zip(CLASSIFICATION.total(pieces), whole, strict=True):
        assert torch.allclose(found, expected, rtol=1e-6)


def test_a_diverged_network_on_masked_sequences_counts_as_chance_among_the_classes():
    """Of the copy stream's eight symbols, though most of its steps have no label."""
    given = {"data": {"name": "copy", "length": 12, "min_length": 11, "train_size": 16}}
    dataset = data_of.load(Config.model_validate(given).data)
    assert (dataset.train_y == IGNORED).float().mean() > 0.8
    cfg = config(model__name="recurrent", norm__name="none", optimizer__lr=1e38)
    stack = make_stack([run.build(cfg, dataset.shape, dataset.num_classes)], CPU, known=True)
    (row,) = list(train(stack, dataset, [cfg]))[-1]
    assert row["diverged_at"] is not None
    assert row["test_error"] == row["train_error"] == row["val_error"] == 7 / 8
    assert math.isnan(row["train_loss"])
