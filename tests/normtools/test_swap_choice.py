"""Which norm layers are exchanged, for what: names, functions, patterns, norms of each position."""

import copy
from functools import partial

import pytest
import torch
import torchvision
from torch import nn

from bnstudy.norms import BatchNorm, FilterResponseNorm, GroupNorm, PerPosition, RMSNorm, swap_norms

# float64, at most 150 values of order ten
EXACT = {"rtol": 1e-10, "atol": 1e-10}


def network():
    torch.manual_seed(0)
    shared = nn.BatchNorm2d(6, eps=1e-3)
    head = nn.Sequential(nn.BatchNorm2d(6), shared)
    model = nn.Sequential(nn.Conv2d(3, 6, 3), shared, head, nn.BatchNorm2d(6)).double()
    for p in model.parameters():
        nn.init.normal_(p)
    model(X)
    return model


X = 2 + torch.randn(8, 3, 5, 5, generator=torch.Generator().manual_seed(1)).double()


@pytest.mark.parametrize(
    ("layers", "names"),
    [
        ("3", ["3"]),
        ("2.*", ["1", "2.0"]),  # the shared layer by either of its names
        (lambda name: name.startswith("2"), ["1", "2.0"]),
        (lambda name: name == "1", ["1"]),
        (None, ["1", "2.0", "3"]),
    ],
)
def test_layers_are_chosen_by_pattern_or_predicate_and_shared_ones_stay_one(layers, names):
    model = network()
    report = swap_norms(model, "group", layers=layers, num_groups=2)
    assert sorted(swap.name for swap in report) == names
    assert model[1] is model[2][1]
    changed = {n for n, m in model.named_modules() if isinstance(m, GroupNorm)}
    assert changed == set(names)
    report.undo()
    assert not any(isinstance(m, GroupNorm) for m in model.modules())


def test_a_choice_of_no_layer_is_refused_with_the_names_there_are():
    with pytest.raises(
        ValueError, match=r"'2\.9'.*none of the model's 4.*1, 3, 2\.0.*Did you mean"
    ):
        swap_norms(network(), "layer", layers="2.9")
    with pytest.raises(ValueError, match="none of the model's 4 norm layers"):
        swap_norms(network(), "layer", layers=lambda name: False)


def test_a_model_without_norms_is_told_what_it_has():
    with pytest.raises(ValueError, match="only 2 Linear, 1 ReLU"):
        swap_norms(nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 3)), "batch")


def test_a_swap_that_would_leave_every_layer_is_refused_with_the_reasons():
    model = nn.Sequential(nn.LayerNorm(3), nn.LazyBatchNorm2d())
    with pytest.raises(ValueError, match=r"(?s)every norm.*per_position=True.*1: .*not known yet"):
        swap_norms(model, "batch")


def test_a_function_of_the_channels_makes_the_layers_and_values_are_carried_over():
    model = network()
    (swap, *_) = swap_norms(model, partial(FilterResponseNorm, tlu=False), layers="1")
    assert isinstance(model[1], FilterResponseNorm)
    assert swap.kept == ("gamma",)
    model = network()
    weight = model[1].weight.detach().clone()
    swap_norms(model, lambda channels: nn.GroupNorm(3, channels))
    assert type(model[1]) is nn.GroupNorm
    assert model[1].weight.dtype == torch.float64
    assert torch.equal(model[1].weight, weight)
    (swap, *_) = swap_norms(model, nn.Identity)  # of the channels it takes no notice
    assert swap.kept == ()
    assert swap.why == "not kept: gamma, beta"


def test_a_model_goes_to_our_batch_norm_and_back_to_torchs_without_a_change():
    model = network().eval()
    expected = model(X)
    swap_norms(model, "batch")
    back = lambda channels: nn.BatchNorm2d(channels, eps=1e-5)  # noqa: E731
    (swap, *_) = swap_norms(model, back, layers="3")
    assert swap.kept == ("gamma", "beta", "population")
    assert torch.equal(model(X), expected)


@pytest.mark.parametrize(
    ("norm", "params", "error", "words"),
    [
        (BatchNorm, {"eps": 1e-3}, TypeError, "eps: parameters belong to a norm by name"),
        (lambda channels: channels, {}, TypeError, "'1': the function made a int"),
        (partial(GroupNorm, num_groups=4), {}, ValueError, "'1': num_groups=4 does not divide C=6"),
        ("group", {"num_groups": 4}, ValueError, "channels_per_group=k takes the divisor nearest"),
    ],
    ids=["parameters", "no module", "refused", "groups"],
)
def test_a_wrong_function_is_refused_and_leaves_the_model(norm, params, error, words):
    model = network()
    before = dict(model.named_modules())
    with pytest.raises(error, match=words):
        swap_norms(model, norm, **params)
    assert all(before[name] is module for name, module in model.named_modules())


def test_groups_that_do_not_divide_the_channels_are_those_nearest():
    model = nn.Sequential(*(nn.BatchNorm2d(channels) for channels in (64, 24, 20, 7)))
    report = swap_norms(model, "group", channels_per_group=8)
    assert [layer.num_groups for layer in model] == [8, 3, 2, 1]
    assert "num_groups=2" in report.swaps[2].after


# --- norms of each position ----------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(4, 6), (4, 5, 6), (2, 3, 5, 6)])
@pytest.mark.parametrize(("norm", "old"), [("layer", nn.LayerNorm), ("rms", nn.RMSNorm)])
def test_a_norm_of_each_position_becomes_the_same_of_ours(norm, old, shape):
    theirs = nn.Sequential(old(6)).double()
    for p in theirs.parameters():
        nn.init.normal_(p)
    ours = copy.deepcopy(theirs)
    (swap,) = swap_norms(ours, norm, per_position=True)
    assert isinstance(ours[0], PerPosition)
    assert "per-position" in swap.after
    x = 3 + torch.randn(shape, generator=torch.Generator().manual_seed(0)).double()
    torch.testing.assert_close(ours(x), theirs(x), **EXACT)


def test_batch_norm_of_each_position_is_that_of_examples_and_positions_per_channel():
    model = nn.Sequential(nn.LayerNorm(6)).double()
    swap_norms(model, "batch", per_position=True)
    x = 3 + torch.randn(4, 5, 6, generator=torch.Generator().manual_seed(0)).double()
    expected = nn.BatchNorm1d(6).double()(x.transpose(1, 2)).transpose(1, 2)
    torch.testing.assert_close(model(x), expected, **EXACT)


@pytest.mark.parametrize(
    ("arch", "size", "norms"),
    [("vit_b_16", 224, 25), ("swin_t", 64, 29), ("convnext_tiny", 64, 23)],
)
@pytest.mark.parametrize("norm", ["layer", "batch"])
def test_transformers_and_convnext_are_exchanged_throughout(arch, size, norms, norm):
    with torch.device("meta"):  # shapes only
        model = torchvision.models.get_model(arch)
        with pytest.raises(ValueError, match="per_position=True"):
            swap_norms(model, norm)
        report = swap_norms(model, norm, per_position=True)
        assert len(report.replaced) == norms
        assert not any(isinstance(m, nn.LayerNorm) for m in model.modules())
        assert model.eval()(torch.empty(2, 3, size, size)).shape == (2, 1000)


def test_convnext_computes_the_same_with_our_layer_norm():
    torch.manual_seed(0)
    theirs = torchvision.models.convnext_tiny(num_classes=3).eval()
    for m in theirs.modules():
        if isinstance(m, nn.LayerNorm):
            nn.init.normal_(m.weight, 1, 0.1)
            nn.init.normal_(m.bias, 0, 0.1)
    ours = copy.deepcopy(theirs)
    swap_norms(ours, "layer", per_position=True)
    x = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(ours(x), theirs(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("norm", "params"),
    [("instance", {}), ("filter_response", {}), ("ghost", {"group_size": 2}), ("online", {})],
)
def test_what_a_position_does_not_define_is_refused_by_name(norm, params):
    model = nn.Sequential(nn.BatchNorm1d(3), nn.Sequential(nn.LayerNorm(3)))
    with pytest.raises(ValueError, match=rf"'1\.0', a LayerNorm.*'{norm}'"):
        swap_norms(model, norm, per_position=True, **params)
    assert type(model[0]) is nn.BatchNorm1d


def test_a_norm_over_several_axes_is_left_and_said_so():
    model = nn.Sequential(nn.BatchNorm2d(3), nn.LayerNorm((3, 4, 4)))
    report = swap_norms(model, "rms", per_position=True)
    assert isinstance(model[0], RMSNorm)
    assert "over 3 axes" in report.left[0].why
