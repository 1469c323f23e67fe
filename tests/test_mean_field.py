"""Predicted growth of gradients against closed forms, sampling, and networks of this package."""

import math

import numpy as np
import pytest

from bnstudy import mean_field
from bnstudy.mean_field import growth, predicted_growth, predicted_residual


def test_at_large_batches_relu_grows_by_pi_over_pi_minus_one():
    assert predicted_growth("batch", "relu") == pytest.approx(math.pi / (math.pi - 1), rel=1e-5)
    assert predicted_growth("layer", "relu") == pytest.approx(1, rel=1e-5)
    # a correction of order 1 / B
    assert predicted_growth("batch", "relu", 4096) == pytest.approx(
        predicted_growth("batch", "relu"), rel=1e-3
    )


def test_tanh_has_mean_zero_so_centring_costs_nothing():
    both = [predicted_growth(norm, "tanh") for norm in ("batch", "layer")]
    assert both[0] == pytest.approx(both[1], rel=1e-9)


@pytest.mark.parametrize("batch", [4, 5, 8, 32, 512])
def test_without_activation_it_is_b_minus_two_over_b_minus_three(batch):
    assert predicted_growth("batch", "identity", batch) == pytest.approx(
        (batch - 2) / (batch - 3), rel=1e-6
    )


@pytest.mark.parametrize("batch", [4, 8, 128])
def test_relu_at_a_finite_batch_has_a_closed_form(batch):
    """By arc-cosine kernels (Cho & Saul 2009) of two values with correlation -1 / (B - 1)."""
    rho = -1 / (batch - 1)
    square, pair = 0.5, (math.sqrt(1 - rho**2) + rho * (math.pi - math.acos(rho))) / (2 * math.pi)
    both = 0.25 + math.asin(rho) / (2 * math.pi)  # of two values positive
    trace = (batch - 1) * square - square
    sums = 2 * square + (batch - 1) * (both + pair)
    product = batch / (batch - 3) * (trace - square + sums / batch) / (batch - 1)
    expected = product / (square - pair)
    assert predicted_growth("batch", "relu", batch) == pytest.approx(expected, rel=1e-3)


def test_tanh_at_a_finite_batch_is_what_sampling_gives():
    """40,000 points of the sphere: the mean of the traces has a standard error of 0.1 %."""
    batch, rng = 8, np.random.default_rng(0)
    h = rng.standard_normal((40_000, batch))
    h -= h.mean(1, keepdims=True)
    h *= math.sqrt(batch) / np.linalg.norm(h, axis=1, keepdims=True)
    d, centred = 1 - np.tanh(h) ** 2, np.eye(batch) - 1 / batch
    backward = centred - h[:, :, None] * h[:, None, :] / batch
    product = backward * d[:, None, :]
    trace = np.einsum("nij,jk,nik->n", product, centred, product).mean() / (batch - 1)
    phi = np.tanh(h)
    signal = ((phi - phi.mean(1, keepdims=True)) ** 2).sum(1).mean() / (batch - 1)
    expected = batch / (batch - 3) * trace / signal
    assert predicted_growth("batch", "tanh", batch) == pytest.approx(expected, rel=5e-3)


def test_batches_below_four_have_no_mean():
    with pytest.raises(ValueError, match="below batches of 4"):
        predicted_growth("batch", "relu", 3)


def test_without_a_norm_gradients_keep_their_size_or_double_with_shortcuts():
    assert predicted_growth("none", "relu", 8) == 1
    assert predicted_residual("none", "identity", 8, 40) == pytest.approx(2)
    assert math.isnan(predicted_growth("none", "tanh"))


def test_with_shortcuts_and_batch_norm_growth_falls_with_depth():
    found = [predicted_residual("batch", "relu", 128, layers) for layers in (20, 40, 80)]
    assert sorted(found, reverse=True) == found
    assert found[0] < predicted_growth("batch", "relu")


def test_growth_is_that_of_the_middle_layers_towards_the_input():
    logs = [-0.3 * layer for layer in range(40)]
    assert growth(logs) == pytest.approx(math.exp(0.3))
    ends = [9.0] * 10 + logs[10:35] + [9.0] * 5
    assert growth(ends) == pytest.approx(math.exp(0.3))
    assert mean_field.middle(40) == range(10, 35)
    assert math.isnan(growth([1.0, 2.0]))
