"""From a config to a network: what is refused before training, and what a network is made of."""

import pytest
import torch

from bnstudy.config import Config
from bnstudy.data import Dataset
from bnstudy.errors import UserError
from bnstudy.work.build import anatomy, check


def data(n=20, shape=(1, 8, 8), classes=10) -> Dataset:
    x, y = torch.zeros(n, *shape), torch.arange(n) % classes
    return Dataset(x, y, x, y, x, y, num_classes=classes)


def config(model="mlp", norm="batch", batch_size=4, model_args=(), **norm_args) -> Config:
    return Config.model_validate(
        {
            "model": {"name": model, **dict(model_args)},
            "norm": {"name": norm, **norm_args},
            "train": {"batch_size": batch_size, "steps": 1},
        }
    )


def train(n=40, classes=10, **settings) -> tuple[Config, Dataset]:
    """A config with these settings of training, and data."""
    plain = {"model": {"name": "mlp"}, "train": {"batch_size": 8, "steps": 1, **settings}}
    return Config.model_validate(plain), data(n, classes=classes)


def changed(cfg: Config, **parts) -> Config:
    tree = cfg.model_dump()
    for part, values in parts.items():
        tree[part] |= values
    return Config.model_validate(tree)


@pytest.mark.parametrize(
    ("cfg", "said"),
    [
        (config(batch_size=21), ["batch_size=21", "20 examples", "at most 20"]),
        (config(norm="grop"), ["unknown norm 'grop'", "Did you mean 'group'"]),
        (config("resnt"), ["unknown model 'resnt'", "Did you mean 'resnet'"]),
        (config(norm="layer", group_size=2), ["norm.group_size=2", "layer norm has no group_size"]),
        (config(norm="layer", freeze_at=0.5), ["norm.freeze_at=0.5", "layer norm has no"]),
        (config(norm="layer", momentum=0.5), ["norm.momentum=0.5", "layer norm has no"]),
        (config(norm="layer", sync=True), ["norm.sync=true", "layer norm has no sync"]),
        (config(model_args={"width": 2}), ["model.width=2", "mlp model has no width"]),
        (config(scope="shared"), ["norm.scope=shared", "norm=batch in a recurrent network"]),
        (config(r_max=3.0), ["norm=batch", "both r_max and d_max"]),
        (config("recurrent"), ["model=recurrent reads sequences", "data.sequence=rows"]),
        (
            changed(config("torchvision"), train={"processes": 2}, model={"arch": "resnet18"}),
            ["train.processes=2 supports model=mlp, lenet, resnet", "not torchvision"],
        ),
        (
            changed(config(), evaluate={"probes": ["gradient_norm"]}),
            ["evaluate.probes=gradient_norm", "images"],
        ),
    ],
)
def test_what_shows_without_a_network_is_checked_without_one(cfg, said, monkeypatch):
    monkeypatch.setattr("bnstudy.models.build", None)
    with pytest.raises(UserError) as error:
        check(cfg, data())
    for words in said:
        assert words in str(error.value)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"classes_per_batch": 16, "batch_size": 16}, "classes_per_batch=16: digits has 10"),
        ({"classes_per_task": 11}, "classes_per_task=11: digits has 10 classes"),
        # 4 of each class: a batch of 8 of one class, or 5 of each of two, cannot be made up
        ({"classes_per_batch": 1}, "8 examples of each of 1 classes, and 0 classes"),
        ({"classes_per_batch": 2, "batch_size": 10}, "5 examples of each of 2 classes, and 0"),
    ],
)
def test_classes_that_make_no_batch_are_refused(settings, said):
    with pytest.raises(UserError, match=said):
        check(*train(**settings))


def test_classes_that_make_a_batch_are_not_refused():
    check(*train(classes_per_batch=2))
    check(*train(classes_per_task=10))


@pytest.mark.parametrize(
    ("cfg", "said"),
    [
        (config(batch_size=1), ["layer '2'", "no variance", "group norm"]),
        (config(norm="instance"), ["layer '2'", "instance"]),
        (
            config("resnet", "group", num_groups=3),
            ["layer '1' (8 channels)", "num_groups=3"],
        ),
        (config("resnet", model_args={"depth": 10}), ["depth=10", "8, 14"]),
        (config("mlp", "ghost", 6, group_size=4), ["groups of 4", "batch of 6"]),
    ],
)
def test_what_a_layer_refuses_names_the_layer(cfg, said):
    check(cfg, data())
    with pytest.raises(UserError) as error:
        anatomy(cfg, data())
    for words in said:
        assert words in str(error.value)


def test_no_image_model_reads_sequences():
    x, y = torch.zeros(20, 3, 7), torch.zeros(20, 7, dtype=torch.long)
    sequences = Dataset(x, y, x, y, x, y, num_classes=2)
    for model in ("mlp", "lenet", "resnet", "torchvision"):
        with pytest.raises(
            UserError, match=f"model={model} reads images.*choose model=.*recurrent"
        ):
            check(config(model), sequences)
    check(config("recurrent"), sequences)


def test_m_is_batch_times_positions():
    """m = B*H*W of every norm layer: 8x8, 8x8, 8x8, 4x4 (and shortcut), 2x2 in the ResNet."""
    found = anatomy(config("resnet", batch_size=2), data())
    assert [layer["positions"] for layer in found.layers] == [64, 64, 64, 16, 16, 16, 4, 4, 4]
    assert [layer["m"] for layer in found.layers] == [
        2 * layer["positions"] for layer in found.layers
    ]
    assert len({layer["name"] for layer in found.layers}) == 9


def test_groups_are_listed_for_each_layer():
    """channels_per_group=8: one group of 8 channels, two of 16, four of 32; m counts one group."""
    cfg = config("resnet", "group", channels_per_group=8)
    layers = anatomy(cfg, data()).layers
    assert [layer["num_groups"] for layer in layers] == [1, 1, 1, 2, 2, 2, 4, 4, 4]
    assert [layer["m"] for layer in layers] == [8 * layer["positions"] for layer in layers]


def test_macs_of_an_mlp_are_its_weights():
    found = anatomy(config(model_args={"hidden": (7, 5)}), data())
    assert found.macs == 64 * 7 + 7 * 5 + 5 * 10


def test_lenet_adapts_to_small_images():
    assert len(anatomy(config("lenet"), data()).layers) == 4
    big = anatomy(config("lenet"), data(shape=(1, 28, 28)))
    assert [layer["positions"] for layer in big.layers] == [24 * 24, 8 * 8, 1, 1]


OWN_NETS = """
from torch import nn
def without(config, shape, num_classes, norm):
    return nn.Sequential(nn.Flatten(), nn.Linear(64, num_classes))
def foreign(config, shape, num_classes, norm):
    return nn.Sequential(nn.Flatten(), nn.BatchNorm1d(64), nn.Linear(64, num_classes))
class Unused(nn.Module):
    def __init__(self, norm):
        super().__init__()
        self.last, self.norm = nn.Linear(64, 10), norm(64)
    def forward(self, x):
        return self.last(x.flatten(1))
def unused(config, shape, num_classes, norm):
    return Unused(norm)
def mixed(config, shape, num_classes, norm):
    return nn.Sequential(nn.Flatten(), nn.LayerNorm(64), norm(64), nn.Linear(64, num_classes))
class Pair(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.inner = nn.BatchNorm1d(channels)
    def forward(self, x):
        return self.inner(x)
"""


@pytest.fixture
def own_nets(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "own_nets_of_build.py").write_text(OWN_NETS)

    def own(function: str, norm: str = "batch", **settings) -> Config:
        model = {"entry": f"own_nets_of_build:{function}"}
        return config("custom", norm, model_args=model, **settings)

    return own


@pytest.mark.parametrize(
    ("function", "norm", "said"),
    [
        ("without", "batch", "py:3.*never calls norm.channels."),
        ("without", "layer", "norm=layer would change nothing"),
        ("foreign", "batch", "py:5.*1 BatchNorm1d of its own"),
        ("foreign", "none", "norm=none would change nothing.*1 BatchNorm1d of its own"),
        ("unused", "batch", "py:11.*makes 1 norm layer and its forward calls none"),
    ],
)
def test_a_network_without_a_layer_of_the_chosen_norm_is_refused(own_nets, function, norm, said):
    """Else every arm would be the same network, and a comparison would find no difference."""
    with pytest.raises(UserError, match=said):
        anatomy(own_nets(function, norm), data())


def test_a_network_without_norms_is_that_of_no_norm(own_nets):
    assert anatomy(own_nets("without", "none"), data()).layers == []
    assert len(anatomy(own_nets("mixed"), data()).layers) == 1


def test_a_norm_of_parts_is_a_layer_of_norm(own_nets):
    cfg = own_nets("mixed", "custom", entry="own_nets_of_build:Pair")
    assert [layer["channels"] for layer in anatomy(cfg, data()).layers] == [64]
