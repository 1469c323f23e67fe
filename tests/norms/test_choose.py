"""A name means the same on the command line and in the library."""

from pathlib import Path

import pytest
import torch
import yaml
from torch import nn

from bnstudy.norms import NORMS, PRESETS, BatchNorm, make, swap_norms

YAML = Path(__file__).parents[2] / "configs" / "norm"
CHOICES = {path.stem: yaml.safe_load(path.read_text()) for path in YAML.glob("*.yaml")}
OWN = "custom"  # the user's, which has no name in the library


@pytest.mark.parametrize("name", [name for name in CHOICES if name != OWN])
def test_every_choice_of_the_command_line_is_a_norm_or_a_preset_with_its_settings(name):
    settings = dict(CHOICES[name])
    norm = settings.pop("name")
    assert name in NORMS or name in PRESETS
    if name in NORMS:
        assert norm == name
    else:
        assert PRESETS[name] == (norm, settings)


def test_every_preset_is_a_choice_of_the_command_line():
    assert PRESETS.keys() <= CHOICES.keys()
    assert not PRESETS.keys() & NORMS.keys()


def test_a_presets_settings_give_way_to_those_named():
    layer = make("renorm")(4)
    assert isinstance(layer, BatchNorm)
    assert (layer.r_max, layer.d_max) == (3.0, 5.0)
    assert make("renorm", r_max=2.0)(4).r_max == 2.0
    assert make("recurrent_batch")(4).weight.unique() == torch.tensor(0.1)
    with pytest.raises(ValueError, match="renorm"):
        make("renrom")


def model():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16), nn.Flatten(), nn.Linear(144, 10), nn.Softmax(1)
    )


def test_weights_are_standardized_by_swapping_and_raw_again_after_undoing():
    x, net = torch.randn(8, 3, 5, 5), model()
    before, expected = net.state_dict(), net.eval()(x)
    report = swap_norms(net, "ws_group")
    assert net[1].num_groups == 2  # 8 channels per group
    for layer in (net[0], net[3]):
        # a mean of 27 or 144 values of order one
        assert layer.weight.flatten(1).mean(1).abs().max() < 1e-6
    report.undo()
    assert net.state_dict().keys() == before.keys()
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())
    assert torch.equal(net(x), expected)
    assert type(net[0]) is nn.Conv2d
    swap_norms(net, "ws_group", num_groups=4)
    assert net[1].num_groups == 4
    changed = [type(m) for m in net.modules()]
    with pytest.raises(ValueError, match="standardize a model once"):
        swap_norms(net, "ws_group")
    assert [type(m) for m in net.modules()] == changed


def test_a_layer_cannot_standardize_a_model():
    with pytest.raises(ValueError, match=r"make\('group', channels_per_group=8\).*standardize_w"):
        make("ws_group")
