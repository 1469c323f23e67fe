"""The stylization network and the fixed networks that images are compared with."""

import pytest
import torch
from torch import nn

from bnstudy import norms
from bnstudy.errors import UserError
from bnstudy.models import features
from bnstudy.models.stylizer import Mirror, Stylizer


def net(norm="instance", channels=1, **settings):
    torch.manual_seed(0)
    return Stylizer(channels, 4, 1, norms.make(norm, **settings)).double()


@pytest.mark.parametrize("size", [(8, 8), (13, 22), (32, 40)])
def test_images_keep_their_size_and_stay_within_the_grey_range(size):
    x = torch.rand(2, 3, *size, dtype=torch.float64)
    y = net(channels=3)(x)
    assert y.shape == x.shape
    assert y.min() >= 0
    assert y.max() <= 1


def test_mirrored_maps_are_those_of_reflection_padding():
    x = torch.randn(2, 3, 9, 11, dtype=torch.float64, requires_grad=True)
    g = torch.randn(2, 3, 13, 15, dtype=torch.float64)
    ours, theirs = Mirror(2)(x), nn.ReflectionPad2d(2)(x)
    assert torch.equal(ours, theirs)
    (first,), (second,) = (torch.autograd.grad((y * g).sum(), x) for y in (ours, theirs))
    torch.testing.assert_close(first, second)


def test_every_convolution_but_the_last_has_a_norm():
    made = []
    Stylizer(1, 4, 3, lambda channels: made.append(channels) or nn.Identity())
    # two ends and two steps between on either side, two in each of three blocks
    assert made == [4, 8, 16, *[16] * 6, 8, 4]


def test_by_instance_norm_the_output_does_not_depend_on_contrast_and_brightness():
    """Exactly, up to rounding: each image is centred and scaled behind the first convolution."""
    x = torch.rand(2, 1, 16, 16, dtype=torch.float64)
    changed = 0.3 + 0.25 * x
    instance = net(eps=1e-12)  # at 1e-5 eps is a thousandth of a low contrast's variance
    assert (instance(changed) - instance(x)).abs().max() < 1e-8
    batch = net("batch", eps=1e-12).eval()
    assert (batch(changed) - batch(x)).abs().max() > 1e-3


def test_random_features_are_one_network_and_leave_the_generator_alone():
    torch.manual_seed(3)
    before = torch.get_rng_state()
    first, second = features.random_features(1), features.random_features(1)
    assert torch.equal(torch.get_rng_state(), before)
    x = torch.rand(2, 1, 32, 32)
    maps = first(x)
    assert [m.shape[1:] for m in maps] == [(16, 32, 32), (32, 16, 16), (64, 8, 8)]
    assert all(torch.equal(a, b) for a, b in zip(maps, second(x), strict=True))
    assert not any(p.requires_grad for p in first.parameters())
    assert not first.training


def test_vgg_is_never_downloaded(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    with pytest.raises(UserError, match=r"never downloaded unasked.*task\.features=random"):
        features.vgg_fingerprint()
    with pytest.raises(UserError, match="vgg16-"):
        features.FEATURES["vgg16"](1)


def test_vgg_s_stages_are_those_of_its_own_layers(tmp_path, monkeypatch):
    """On weights drawn at random: maps before each pooling, greys as three equal colors."""
    from torchvision.models import vgg16

    monkeypatch.setattr(features, "vgg_path", lambda: tmp_path / "vgg16.pth")
    torch.manual_seed(0)
    own = vgg16(weights=None).eval()
    torch.save(own.state_dict(), tmp_path / "vgg16.pth")
    fixed = features.FEATURES["vgg16"](1)
    x = torch.rand(1, 1, 32, 32)
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (features.VGG_MEAN, features.VGG_STD))
    with torch.no_grad():
        wanted = own.features[:9]((x.expand(1, 3, 32, 32) - mean) / std)
        maps = fixed(x)
    assert [m.shape[1] for m in maps] == [64, 128, 256, 512]
    torch.testing.assert_close(maps[fixed.content], wanted)
    assert len(features.vgg_fingerprint()) == 16
