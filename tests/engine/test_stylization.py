"""The loss of stylization against its formula, and what holds of it by construction."""

import numpy as np
import pytest
import torch

from bnstudy.config import TaskConfig
from bnstudy.engine.stylization import Stylization, gram
from bnstudy.models.features import random_features

WEIGHT = 3.0


@pytest.fixture(scope="module")
def task():
    torch.manual_seed(1)
    fixed = random_features(1)
    config = TaskConfig(name="stylization", style_weight=WEIGHT)
    return Stylization(config, fixed, fixed.content, torch.rand(1, 24, 24))


def batch(n=3, seeds=2, side=16):
    torch.manual_seed(2)
    x = torch.rand(n, seeds, 1, side, side)
    return x, torch.stack([x, x], dim=2)


def test_the_loss_is_that_of_the_formula(task):
    _, y = batch()
    output = torch.rand(3, 2, 1, 16, 16)
    loss, _, content, style = task.score(output, y)
    style_maps = [m[0].numpy().astype(float) for m in task.features(task.image[None])]
    for s in range(2):
        contents, styles = [], []
        for i in range(3):
            own = [m[0].numpy().astype(float) for m in task.features(output[i, s][None])]
            given = [m[0].numpy().astype(float) for m in task.features(y[i, s, :1])]
            scale = np.mean([np.var(c, ddof=1) for c in style_maps[1]])
            contents.append(np.mean((own[1] - given[1]) ** 2) / scale)
            each = []
            for a, b in zip(own, style_maps, strict=True):
                ga, gb = (np.einsum("chw,dhw->cd", m, m) / m[0].size for m in (a, b))
                each.append(np.sum((ga - gb) ** 2) / np.sum(gb**2))
            styles.append(np.mean(each))
        assert float(content[s]) == pytest.approx(np.mean(contents), rel=1e-4)
        assert float(style[s]) == pytest.approx(np.mean(styles), rel=1e-4)
        assert float(loss[s]) == pytest.approx(
            np.mean(contents) + WEIGHT * np.mean(styles), rel=1e-4
        )


def test_returning_the_input_is_an_error_of_one_and_has_no_content_loss(task):
    x, y = batch()
    loss, error, content, style = task.score(x, y)
    torch.testing.assert_close(error, torch.ones(2))
    torch.testing.assert_close(content, torch.zeros(2))
    torch.testing.assert_close(loss, WEIGHT * style)


def test_the_style_image_itself_has_no_style_loss(task):
    _, y = batch(side=24)
    output = task.image.expand(3, 2, 1, 24, 24)
    assert float(task.score(output, y)[3].max()) < 1e-10


def test_a_network_s_loss_is_its_own(task):
    x, y = batch()
    output = torch.rand_like(x)
    both = task.score(output, y)
    for s in range(2):
        alone = task.score(output[:, [s]], y[:, [s]])
        for a, b in zip(both, alone, strict=True):
            torch.testing.assert_close(a[[s]], b)


def test_pieces_are_weighted_by_their_images(task):
    x, y = batch(n=5)
    output = torch.rand_like(x)
    whole = task.score(output, y)
    pieces = task.total([(output[:2], y[:2]), (output[2:], y[2:])])
    for k in (0, 2, 3):  # an error is a ratio of means
        torch.testing.assert_close(whole[k], pieces[k])


def test_only_outputs_have_a_gradient(task):
    x, y = batch()
    output = torch.rand_like(x).requires_grad_()
    loss, *others = task.score(output, y)
    (found,) = torch.autograd.grad(loss.sum(), output)
    assert found.abs().sum() > 0
    assert not any(value.requires_grad for value in others)


def test_gram_matrices_do_not_depend_on_where_things_are():
    maps = torch.randn(2, 3, 6, 6)
    torch.testing.assert_close(gram(maps), gram(maps.roll((2, 1), (2, 3))))


def test_a_diverged_network_counts_as_one_that_does_nothing(task):
    assert task.diverged("test_error", None) == 1
    assert np.isnan(task.diverged("test_loss", None))
