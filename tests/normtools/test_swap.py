"""Norm layers of any model are exchanged with what belongs to them, reported, and put back."""

import copy

import pytest
import torch
import torchvision
from torch import nn

from bnstudy.norms import (
    BatchNorm,
    ContinualNorm,
    GroupNorm,
    InstanceNorm,
    LayerNorm,
    NoNorm,
    RMSNorm,
    swap_norms,
)


def network():
    torch.manual_seed(0)
    shared = nn.BatchNorm2d(6, eps=1e-3, momentum=0.2)
    model = nn.Sequential(
        nn.Conv2d(3, 6, 3),
        shared,
        nn.Sequential(nn.Conv2d(6, 6, 1), shared, nn.ReLU()),
        nn.InstanceNorm2d(6, affine=True),
        nn.Flatten(),
        nn.Linear(6 * 9, 12),
        nn.BatchNorm1d(12, affine=False),
        nn.LayerNorm(12),
    )
    for p in model.parameters():
        nn.init.normal_(p)
    model(torch.randn(8, 3, 5, 5))
    return model


X = torch.randn(8, 3, 5, 5, generator=torch.Generator().manual_seed(1))


def test_torch_batch_norm_to_ours_changes_no_number_in_training_or_evaluation():
    model = network()
    ours = copy.deepcopy(model)
    report = swap_norms(ours, "batch")
    assert isinstance(ours[1], BatchNorm)
    assert ours[1] is ours[2][1]  # a shared layer stays one layer
    assert (ours[1].eps, ours[1].momentum) == (1e-3, 0.2)
    assert ours[6].weight is None
    # the instance norm became a batch norm, so compare what comes before it
    for mode in (True, False):
        torch.testing.assert_close(ours[:3].train(mode)(X), model[:3].train(mode)(X))
    for key in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked"):
        torch.testing.assert_close(getattr(ours[1], key), getattr(model[1], key))
    assert [swap.name for swap in report.replaced] == ["1", "3", "6"]
    assert report.replaced[0].kept == ("gamma", "beta", "population")
    (left,) = report.left
    assert left.name == "7"
    assert "per_position=True" in left.why
    assert "7: LayerNorm left: normalizes the channels of each position" in str(report)


def test_undo_puts_the_very_layers_back():
    model = network().eval()
    before, expected = dict(model.named_modules()), model(X)
    report = swap_norms(model, "group", channels_per_group=3)
    assert isinstance(model[1], GroupNorm)
    assert not torch.equal(model(X), expected)
    report.undo()
    assert all(before[name] is module for name, module in model.named_modules())
    assert torch.equal(model(X), expected)


def test_affine_maps_carry_over_where_they_mean_the_same():
    weight, bias = network()[1].weight, network()[1].bias
    model = network()
    swap = swap_norms(model, "layer").swaps[0]
    assert isinstance(model[1], LayerNorm)
    torch.testing.assert_close(model[1].weight, weight)
    torch.testing.assert_close(model[1].bias, bias)
    assert swap.kept == ("gamma", "beta")
    assert swap.why == "not kept: population"
    model = network()
    swap = swap_norms(model, "rms").swaps[0]  # not centred: beta is no channel's mean any more
    assert isinstance(model[1], RMSNorm)
    torch.testing.assert_close(model[1].weight, weight)
    assert not model[1].bias.any()
    assert swap.kept == ("gamma",)
    model = network()
    assert swap_norms(model, "none").swaps[0].why == "not kept: gamma, beta, population"
    assert isinstance(model[1], NoNorm)
    model = network()
    swap_norms(model, "continual", num_groups=2)  # its population is that of normalized inputs
    assert isinstance(model[1], ContinualNorm)
    assert not model[1].running_mean.any()


def test_device_type_state_hooks_and_frozen_weights_carry_over():
    model = network().double().eval()
    model[1].weight.requires_grad_(False)
    model[1].train()
    seen = []
    handle = model[1].register_forward_hook(lambda *_: seen.append("hook"))
    model[1].register_forward_pre_hook(lambda *_: seen.append("pre"))
    swap_norms(model, "batch", group_size=4)
    assert model[1].weight.dtype == model[1].running_mean.dtype == torch.float64
    assert not model[1].weight.requires_grad
    assert model[1].bias.requires_grad
    assert (model[1].training, model[6].training) == (True, False)
    model[1](torch.randn(8, 6, 2, 2).double())
    assert seen == ["pre", "hook"]
    handle.remove()  # the handle given before the swap still works
    model[1](torch.randn(8, 6, 2, 2).double())
    assert seen == ["pre", "hook", "pre"]


def test_statistics_settings_carry_over():
    model = nn.Sequential(
        nn.BatchNorm2d(4, track_running_stats=False),
        nn.SyncBatchNorm(4),
        torchvision.ops.FrozenBatchNorm2d(4),
    )
    swap_norms(model, "batch")
    assert model[0].evaluation == "batch"
    assert model[1].process_group == "world"
    assert model[2].frozen
    model[1].process_group = None
    swap_norms(model, "ghost", group_size=2)  # ours is exchanged like any other
    assert [type(layer).__name__ for layer in model] == ["GhostBatchNorm"] * 3
    assert model[2].frozen


def test_instance_norm_keeps_its_statistics_and_its_examples_without_batch():
    theirs = nn.Sequential(nn.InstanceNorm1d(3, 1e-3, 0.3, True, True)).double()
    x = 2 + 3 * torch.randn(4, 3, 7, generator=torch.Generator().manual_seed(0)).double()
    theirs(x)
    ours = copy.deepcopy(theirs)
    (swap,) = swap_norms(ours, "instance")
    assert isinstance(ours[0], InstanceNorm)
    assert swap.kept == ("gamma", "beta", "statistics")
    for mode in (True, False):
        for given in (x, x[0]):
            torch.testing.assert_close(ours.train(mode)(given), theirs.train(mode)(given))
    torch.testing.assert_close(ours[0].running_var, theirs[0].running_var)
    (swap,) = swap_norms(theirs, "layer")
    assert swap.why == "not kept: statistics"


class Odd(nn.BatchNorm2d):
    def forward(self, x):
        return super().forward(x) * 2


def test_what_cannot_be_exchanged_is_left_and_named():
    model = nn.Sequential(Odd(3), nn.LazyBatchNorm2d(), nn.BatchNorm2d(3))
    report = swap_norms(model, "group", num_groups=1)
    assert [swap.name for swap in report.left] == ["0", "1"]
    assert "its own forward" in report.left[0].why
    assert "not known yet" in report.left[1].why


@pytest.mark.parametrize(
    ("model", "norm", "params", "words"),
    [
        (nn.Sequential(nn.Linear(3, 3)), "batch", {}, ["no norm layers"]),
        (nn.BatchNorm2d(3), "batch", {}, ["itself a norm layer"]),
        (network(), "gruop", {"num_groups": 2}, ["gruop", "group"]),
        (network(), "group", {"num_groups": 4}, ["'1'", "4", "C=6"]),
    ],
    ids=["no norm", "is a norm", "unknown name", "groups"],
)
def test_a_refusal_is_one_message_and_leaves_the_model(model, norm, params, words):
    before = dict(model.named_modules())
    with pytest.raises(ValueError) as error:
        swap_norms(model, norm, **params)
    for word in words:
        assert word in str(error.value)
    assert all(before[name] is module for name, module in model.named_modules())


@pytest.mark.parametrize(
    ("arch", "norms"),
    [
        ("resnet50", 53),
        ("vgg16_bn", 13),
        ("mobilenet_v3_large", 46),
        ("densenet121", 121),
        ("efficientnet_b0", 49),
    ],
)
def test_torchvision_classifiers_are_exchanged_throughout(arch, norms):
    with torch.device("meta"):  # shapes only
        model = torchvision.models.get_model(arch)
        x = torch.empty(2, 3, 64, 64)
        report = swap_norms(model, "group", channels_per_group=8)
        assert len(report.replaced) == norms
        assert not report.left
        assert not any(isinstance(m, nn.BatchNorm2d) for m in model.modules())
        assert model.eval()(x).shape == (2, 1000)


def test_a_torchvision_resnet_trains_and_evaluates_alike_with_our_batch_norm():
    torch.manual_seed(0)
    theirs = torchvision.models.resnet18(num_classes=5)
    ours = copy.deepcopy(theirs)
    swap_norms(ours, "batch")
    x = torch.randn(4, 3, 32, 32)
    for mode in (True, False):
        assert torch.equal(ours.train(mode)(x), theirs.train(mode)(x))  # the same kernel
