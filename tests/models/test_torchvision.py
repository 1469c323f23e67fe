"""Which norm layers of torchvision's classifiers the chosen norm replaces, and as what."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import bnstudy
from bnstudy import models, norms
from bnstudy.config import Config, ModelConfig
from bnstudy.data import Dataset
from bnstudy.errors import UserError
from bnstudy.models.torchvision import (
    ChannelsLast,
    MapNorm,
    NormLayers,
    architectures,
    norm_layers,
    table,
)
from bnstudy.work.build import anatomy

# a few of every kind; docs/torchvision.md has all
LAYERS = {
    "resnet18": (20, "batch", 0),
    "vgg11": (0, "", 0),
    "vgg11_bn": (8, "batch", 0),
    "squeezenet1_1": (0, "", 0),
    "convnext_tiny": (23, "layer", 0),
    "swin_v2_t": (29, "layer", 0),
    "vit_b_32": (25, "layer", 0),
    "maxvit_t": (34, "batch", 45),
    "regnet_x_400mf": (71, "batch", 0),  # computes its widths from tensors
}


def config(arch: str, norm: str = "batch", **settings) -> Config:
    parts = {"model": {"name": "torchvision", "arch": arch}, "norm": {"name": norm, **settings}}
    return Config.model_validate({**parts, "train": {"batch_size": 4, "steps": 1}})


def data(size: int = 32) -> Dataset:
    x, y = torch.zeros(8, 3, size, size), torch.arange(8)
    return Dataset(x, y, x, y, x, y, num_classes=10)


@pytest.mark.parametrize("arch", LAYERS)
def test_layers_are_counted_as_they_are_replaced(arch):
    found = norm_layers(arch)
    assert found == NormLayers(*LAYERS[arch])
    size = 224 if arch.startswith(("vit", "maxvit", "squeeze", "vgg")) else 64
    norm = "batch" if found.replaced else "none"
    assert len(anatomy(config(arch, norm), data(size)).layers) == found.replaced


@pytest.mark.slow
def test_the_document_is_the_table_of_every_architecture():
    """Written by `open("docs/torchvision.md", "w").write(table())`."""
    written = (Path(bnstudy.__file__).parents[1] / "docs" / "torchvision.md").read_text()
    assert written == table()
    assert all(f"| {arch} |" in written for arch in architectures())


@pytest.mark.parametrize("norm", ["batch", "group", "layer"])
@pytest.mark.parametrize("arch", ["squeezenet1_1", "vgg11", "alexnet"])
def test_an_architecture_without_norms_has_no_arm_but_none(arch, norm):
    more = {"num_groups": 2} if norm == "group" else {}
    with pytest.raises(UserError) as error:
        anatomy(config(arch, norm, **more), data(224))
    for words in (f"model.arch={arch}", f"norm={norm} would change nothing", "norm=none"):
        assert words in str(error.value)
    assert anatomy(config(arch, "none"), data(224)).layers == []
    with pytest.raises(UserError, match="would change nothing"):  # before what else does not fit
        anatomy(config(arch, norm, **more), data(8))


def built(arch: str, norm) -> nn.Module:
    torch.manual_seed(0)
    net = models.build(ModelConfig(name="torchvision", arch=arch), (3, 64, 64), 5, norm)
    return net.eval()


@pytest.mark.parametrize("arch", ["convnext_tiny", "swin_v2_t"])
def test_layer_norm_in_the_place_of_layer_norms_is_the_architecture_itself(arch):
    from torchvision.models import get_model

    torch.manual_seed(0)
    own = get_model(arch, weights=None, num_classes=5).eval()
    eps = next(m.eps for m in own.modules() if isinstance(m, nn.LayerNorm))
    net = built(arch, norms.make("layer", eps=eps))
    assert not any(isinstance(m, nn.LayerNorm) for m in net.modules())
    x = torch.randn(2, 3, 64, 64)
    assert torch.allclose(net(x), own(x), rtol=1e-4, atol=1e-5)  # sums in another order
    other = built(arch, norms.make("batch"))
    assert not torch.allclose(other(x), own(x), rtol=1e-2)


def test_batch_norm_of_tokens_is_over_examples_and_positions():
    x = torch.randn(4, 7, 6) * 3 + 1
    flat = F.batch_norm(x.reshape(-1, 6), None, None, training=True).view_as(x)
    found = ChannelsLast(norms.make("batch")(6))(x)
    assert torch.allclose(found, flat, atol=1e-5)


def test_layer_norm_of_maps_is_at_each_position():
    x = torch.randn(2, 6, 3, 5)
    expected = F.layer_norm(x.permute(0, 2, 3, 1), (6,)).permute(0, 3, 1, 2)
    assert torch.allclose(MapNorm(norms.make("layer")(6))(x), expected, atol=1e-5)
    group = norms.make("group", num_groups=2)(6)
    assert torch.allclose(MapNorm(group)(x), group(x), atol=1e-5)


def test_a_linear_layer_of_a_convnext_costs_its_weights_at_every_position():
    """4.46e9 multiply-accumulates of a 224 x 224 image, as torchvision publishes them."""
    assert anatomy(config("convnext_tiny"), data(224)).macs == pytest.approx(4.46e9, rel=0.01)
