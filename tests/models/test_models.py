"""Shapes, sizes and wiring of the networks."""

import pytest
import torch
from torch import nn

from bnstudy import models
from bnstudy.config import ModelConfig
from bnstudy.errors import UserError


def build(shape=(1, 8, 8), classes=10, norm=nn.Identity, **model):
    return models.build(ModelConfig(**model), shape, classes, norm)


class Counted(nn.Identity):
    def __init__(self, channels):
        super().__init__()
        self.channels = channels


def channels(net) -> list[int]:
    return [m.channels for m in net.modules() if isinstance(m, Counted)]


@pytest.mark.parametrize("shape", [(1, 8, 8), (1, 28, 28), (3, 32, 32)])
@pytest.mark.parametrize("name", ["mlp", "lenet", "resnet"])
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
