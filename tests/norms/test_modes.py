"""Batch norms of a whole model are switched together, and nothing is passed over in silence."""

import copy

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import update_bn

from bnstudy.norms import (
    BatchNorm,
    GhostBatchNorm,
    GroupNorm,
    StepBatchNorm,
    batch_norms,
    calibrate,
    evaluation_mode,
    freeze,
    swap_norms,
    synchronize,
)


def evaluated(model):
    with evaluation_mode(model, "batch"):
        pass


def calibrated(model):
    calibrate(model, [torch.randn(4, 3, 2, 2)])


EVERY = [freeze, synchronize, evaluated, calibrated]


@pytest.mark.parametrize("function", EVERY)
def test_a_model_with_torchs_batch_norms_alone_is_refused_and_told_how_to_swap(function):
    model = nn.Sequential(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3))
    with pytest.raises(ValueError, match=r"\(1\) are torch.nn's.*swap_norms\(model, 'batch'\)"):
        function(model)
    swap_norms(model, "batch")
    function(model)


@pytest.mark.parametrize("function", EVERY)
def test_a_model_without_batch_norm_is_refused(function):
    with pytest.raises(ValueError, match="no BatchNorm of bnstudy's"):
        function(nn.Sequential(nn.Conv2d(3, 4, 1), GroupNorm(4, num_groups=2)))


@pytest.mark.parametrize("function", EVERY)
def test_torchs_batch_norms_beside_ours_are_warned_of_by_name(function):
    model = nn.Sequential(BatchNorm(3), nn.Sequential(nn.BatchNorm2d(3)))
    with pytest.warns(UserWarning, match=r"passes over 1 batch norms of torch.nn \(1\.0\)") as seen:
        function(model)
    assert len(seen) == 1


def test_freezing_is_of_all_layers_or_of_none():
    model = nn.Sequential(BatchNorm(3), BatchNorm(3, track_running_stats=False))
    with pytest.raises(ValueError, match=r"'1'.*track_running_stats=False"):
        freeze(model)
    assert not model[0].frozen
    assert freeze(model[:1])[0].frozen
    assert not freeze(model, False)[0].frozen


def test_synchronizing_is_of_all_layers_or_of_none_and_keeps_them():
    model = nn.Sequential(nn.Sequential(BatchNorm(3)), BatchNorm(3))
    layers = list(batch_norms(model).values())
    assert synchronize(model) is model
    assert [layer.process_group for layer in batch_norms(model).values()] == ["world"] * 2
    assert list(batch_norms(model).values()) == layers
    assert not layers[0].stackable
    synchronize(model, None)
    assert layers[0].process_group is None
    for odd in (GhostBatchNorm(3, group_size=2), StepBatchNorm(3, time_steps=2)):
        with pytest.raises(ValueError, match="layer '2' has statistics for each"):
            synchronize(nn.Sequential(*model, odd))
    assert layers[0].process_group is None


def test_calibration_by_the_mean_of_batches_is_torchs_update_bn():
    torch.manual_seed(0)
    theirs = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.ReLU(), nn.BatchNorm2d(4))
    ours = copy.deepcopy(theirs)
    swap_norms(ours, "batch")
    batches = list(torch.randn(24, 3, 5, 5).split(8))
    update_bn(batches, theirs)
    calibrate(ours, batches, "mean_of_batches")
    for i in (1, 3):
        for key in ("running_mean", "running_var"):
            # a mean of three float32 numbers of order one
            torch.testing.assert_close(getattr(ours[i], key), getattr(theirs[i], key))
    assert not ours[1].running_mean.eq(0).any()
