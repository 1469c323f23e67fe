"""Shapes, sizes and wiring of the networks."""

import numpy as np
import pytest
import torch
from torch import nn

from bnstudy import models
from bnstudy.config import ModelConfig
from bnstudy.engine.widen import Widened
from bnstudy.errors import UserError
from bnstudy.models.layers import BEHIND_RELU, ScaledConv, SkipInit


def build(shape=(1, 8, 8), classes=10, norm=nn.Identity, **model):
    return models.build(ModelConfig(**model), shape, classes, norm)


class Counted(nn.Identity):
    def __init__(self, channels):
        super().__init__()
        self.channels = channels


def channels(net) -> list[int]:
    return [m.channels for m in net.modules() if isinstance(m, Counted)]


@pytest.mark.parametrize("shape", [(1, 8, 8), (1, 28, 28), (3, 32, 32)])
@pytest.mark.parametrize("name", ["mlp", "lenet", "resnet", "deep", "vgg"])
def test_logits_have_one_row_per_example(name, shape):
    net = build(shape, 7, Counted, name=name)
    assert net(torch.randn(3, *shape)).shape == (3, 7)


def test_every_weight_layer_but_the_last_has_a_norm():
    assert channels(build(norm=Counted, name="mlp", hidden=(64, 32))) == [64, 32]
    assert channels(build(norm=Counted, name="lenet")) == [6, 16, 120, 84]
    assert channels(build(norm=Counted, name="lenet", normalized="convolutions")) == [6, 16]
    # 6n + 2: the first convolution, two for each of 3n blocks, and two shortcuts
    assert channels(build(norm=Counted, name="resnet", depth=8, width=4)) == [
        4, 4, 4, 8, 8, 8, 16, 16, 16]  # fmt: skip
    assert len(channels(build(norm=Counted, name="resnet", depth=14))) == 1 + 2 * 6 + 2
    wide = build((1, 32, 32), norm=Counted, name="vgg", depth=11, width=4)
    assert channels(wide) == [4, 4, 8, 8, 16, 16, 32, 32, 32, 32, 32]  # at most 8 times the first


@pytest.mark.parametrize(("side", "poolings", "left"), [(8, 3, 1), (28, 4, 1), (32, 4, 2)])
def test_vgg_pools_after_every_second_convolution_while_there_is_what_to_pool(side, poolings, left):
    net = build((3, side, side), name="vgg", depth=8, width=2)
    assert sum(isinstance(m, nn.MaxPool2d) for m in net) == poolings
    assert net[-1].in_features == 16 * left**2
    for residual in (True, False):
        net = build(norm=Counted, name="deep", depth=5, width=6, residual=residual)
        assert channels(net) == [6] * 5
        assert sum(isinstance(m, nn.Linear) for m in net.modules()) == 6


def test_a_plain_deep_network_is_an_mlp_of_equal_widths():
    """The same function for the same weights: layer, norm, activation, layer after layer."""
    deep = build(norm=nn.BatchNorm1d, name="deep", depth=3, width=7, residual=False)
    mlp = build(norm=nn.BatchNorm1d, name="mlp", hidden=(7, 7, 7))
    mlp.load_state_dict(deep.state_dict())
    x = torch.randn(5, 1, 8, 8)
    assert torch.equal(deep(x), mlp(x))


def test_a_residual_layer_adds_norm_activation_and_layer_to_what_it_reads():
    net = build(norm=nn.LayerNorm, name="deep", depth=2, width=6, activation="tanh")
    first, block, *end = list(net)[1:]
    x = torch.randn(5, 1, 8, 8)
    stream = first(x.flatten(1))
    stream = stream + block.branch[2](torch.tanh(block.branch[0](stream)))
    expected = end[2](torch.tanh(end[0](stream)))
    torch.testing.assert_close(net(x), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("sizes", [{"name": "deep", "depth": 4}, {"name": "resnet", "depth": 8}])
def test_blocks_of_skipinit_start_as_the_identity_and_learn_their_factors(sizes):
    torch.manual_seed(0)
    plain = build(width=4, **sizes)
    torch.manual_seed(0)
    net = build(width=4, branch="skipinit", **sizes)
    x = torch.randn(3, 1, 8, 8)
    before = net(x)
    weights, factors = [], []
    for module in net.modules():
        if isinstance(module, nn.Linear | nn.Conv2d):
            weights.append(module)
        if isinstance(module, SkipInit):
            factors.append(module.weight)
    assert len(factors) == 3
    assert not any(factor.detach().any() for factor in factors)
    before.square().sum().backward()
    assert all(factor.grad.abs() > 0 for factor in factors)
    with torch.no_grad():
        for factor in factors:
            factor.fill_(1.0)
    assert torch.equal(net(x), plain(x))  # the same weights were drawn


def test_factors_of_several_networks_stay_with_their_channels():
    alone = [SkipInit(), SkipInit()]
    wide = alone[0].widened(2)
    with torch.no_grad():
        for value, own in zip((2.0, -3.0), alone, strict=True):
            own.weight.fill_(value)
        wide.weight.copy_(torch.tensor([2.0, -3.0]))
    for shape in ((5, 6), (5, 6, 2, 2)):
        skip, branch = torch.randn(shape), torch.randn(shape)
        halves = [
            own(skip[:, i : i + 3], branch[:, i : i + 3])
            for own, i in zip(alone, (0, 3), strict=True)
        ]
        assert torch.equal(wide(skip, branch), torch.cat(halves, 1))


def test_scaled_weights_are_standardized_over_their_inputs_and_scaled():
    """Brock et al. 2021a, in numpy and float64; constant weights are divided by 0.01."""
    conv = ScaledConv(3, 4, 3, 2, 1, bias=False, gain=1.5).double()
    with torch.no_grad():
        conv.weight.copy_(torch.randn(4, 3, 3, 3) * 5 + 2)
        conv.weight[1] = 3.0
        conv.scale.copy_(torch.tensor([1.0, 2.0, -1.0, 0.5]))
        conv.bias.copy_(torch.arange(4.0))
    w = conv.weight.detach().numpy()
    mean, var = w.mean((1, 2, 3), keepdims=True), w.var((1, 2, 3), keepdims=True)
    factor = 1.5 * conv.scale.detach().numpy().reshape(4, 1, 1, 1)
    expected = torch.from_numpy(factor * (w - mean) / np.sqrt(np.maximum(27 * var, 1e-4)))
    torch.testing.assert_close(conv.standardized(), expected, rtol=1e-12, atol=1e-12)
    x = torch.randn(2, 3, 8, 8, dtype=torch.float64)
    bias = torch.arange(4.0, dtype=torch.float64)
    torch.testing.assert_close(conv(x), nn.functional.conv2d(x, expected, bias, 2, 1))


def test_scaled_weights_keep_variance_one_behind_relu():
    """White noise through ReLU and a convolution: variance 1, where plain weights multiply it."""
    torch.manual_seed(0)
    x = torch.randn(64, 64, 8, 8).relu()
    conv = ScaledConv(64, 256, 3, 1, 0, bias=False, gain=BEHIND_RELU)
    # 256 channels x 64 x 36 values; the fan-in of 576 makes each channel's variance 1 to 6 %
    assert conv(x).var().item() == pytest.approx(1, abs=0.03)
    assert conv(x).mean().item() == pytest.approx(0, abs=0.03)


def test_scaled_weights_start_from_the_same_draws_and_stay_with_their_channels():
    torch.manual_seed(0)
    plain = build(name="resnet", width=4)
    torch.manual_seed(0)
    nets = [build(name="resnet", width=4, scaled_weights=True, branch="skipinit")]
    for key, value in plain.state_dict().items():
        assert torch.equal(nets[0].state_dict()[key], value), key
    nets.append(build(name="resnet", width=4, scaled_weights=True, branch="skipinit"))
    for net in nets:
        for name, parameter in net.named_parameters():
            if name.endswith(("scale", "bias")) or parameter.dim() == 1:
                nn.init.normal_(parameter)
    x = torch.randn(5, 2, 1, 8, 8)
    stack = Widened(nets, torch.device("cpu"))
    expected = torch.stack([net(x[:, i]) for i, net in enumerate(nets)], 1)
    # float32 and another order of sums
    torch.testing.assert_close(stack.predict(x), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["mlp", "lenet", "resnet", "deep"])
def test_the_initial_scale_is_a_factor_of_every_weight(name):
    torch.manual_seed(0)
    plain = build(name=name, width=4).state_dict()
    torch.manual_seed(0)
    scaled = build(name=name, width=4, init_scale=0.5).state_dict()
    for key, value in plain.items():
        factor = 0.5 if value.dim() > 1 else 1.0
        assert torch.equal(scaled[key], factor * value), key


@pytest.mark.parametrize(("activation", "gain"), [("relu", 2), ("tanh", 1), ("identity", 1)])
def test_deep_networks_start_from_he_or_xavier(activation, gain):
    net = build(name="deep", depth=3, width=400, residual=False, activation=activation)
    first, second, *_ = (m.weight.detach() for m in net.modules() if isinstance(m, nn.Linear))
    # a sample variance of 25,600 normal values and more: 1 % is 0.9 %; five of them
    assert first.var() * 64 == pytest.approx(1, rel=0.05)
    assert second.var() * 400 == pytest.approx(gain, rel=0.05)


@pytest.mark.parametrize("name", ["mlp", "lenet", "deep"])
def test_an_activation_by_name_takes_the_place_of_the_models_own(name):
    own = {"mlp": nn.ReLU, "lenet": nn.Sigmoid, "deep": nn.ReLU}[name]
    kinds = [type(m) for m in build(name=name).modules()]
    swapped = [type(m) for m in build(name=name, activation="tanh").modules()]
    assert kinds.count(own) > 0
    assert swapped == [nn.Tanh if kind is own else kind for kind in kinds]


def test_lenet_is_that_of_the_chapter():
    net = build((1, 28, 28), name="lenet")
    kinds = [type(m) for m in net]
    assert kinds.count(nn.Sigmoid) == 4
    assert kinds.count(nn.AvgPool2d) == 2
    flat = next(m for m in net if isinstance(m, nn.Linear))
    assert flat.in_features == 16 * 4 * 4


@pytest.mark.parametrize(
    ("model", "said"),
    [
        ({"name": "renset"}, "Did you mean 'resnet'"),
        ({"name": "resnet", "depth": 9}, "8, 14"),
        ({"name": "deep", "residual": False, "branch": "skipinit"}, "model.residual=true"),
        ({"name": "torchvision", "arch": "resnet51"}, "Did you mean 'resnet"),
    ],
)
def test_sizes_that_do_not_exist_are_refused(model, said):
    with pytest.raises(UserError, match=said):
        build(**model)


def test_torchvision_nets_get_the_norm_everywhere():
    net = build((1, 32, 32), 5, Counted, name="torchvision", arch="resnet18")
    assert not any(isinstance(m, nn.BatchNorm2d) for m in net.modules())
    assert len(channels(net)) == 20
    assert net(torch.randn(2, 1, 32, 32)).shape == (2, 5)
    with torch.device("meta"):
        build((3, 32, 32), 5, Counted, name="torchvision", arch="resnet50")
