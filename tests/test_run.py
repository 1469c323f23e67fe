"""What is refused before any training, and what a worker leaves behind."""

import pytest
import torch

from bnstudy import run
from bnstudy.config import Config
from bnstudy.data import Dataset
from bnstudy.errors import UserError


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


@pytest.mark.parametrize(
    ("cfg", "said"),
    [
        (config(batch_size=21), ["batch_size=21", "20 examples", "at most 20"]),
        (config(batch_size=1), ["layer '2'", "no variance", "group norm"]),
        (config(norm="instance"), ["layer '2'", "instance"]),
        (
            config("resnet", "group", num_groups=3),
            ["layer '1' (8 channels)", "num_groups=3"],
        ),
        (config(norm="grop"), ["unknown norm 'grop'", "Did you mean 'group'"]),
        (config("resnet", model_args={"depth": 10}), ["depth=10", "8, 14"]),
        (config("mlp", "ghost", 6, group_size=4), ["groups of 4", "batch of 6"]),
        (config(norm="layer", group_size=2), ["norm.group_size=2", "layer norm has no group_size"]),
    ],
)
def test_what_cannot_train_is_refused_by_name(cfg, said):
    with pytest.raises(UserError) as error:
        run.preflight(cfg, data())
    for words in said:
        assert words in str(error.value)


def test_m_is_batch_times_positions():
    """m = B*H*W of every norm layer: 8x8, 8x8, 8x8, 4x4 (and shortcut), 2x2 in the ResNet."""
    anatomy = run.preflight(config("resnet", batch_size=2), data())
    assert [layer["positions"] for layer in anatomy.layers] == [64, 64, 64, 16, 16, 16, 4, 4, 4]
    assert [layer["m"] for layer in anatomy.layers] == [
        2 * layer["positions"] for layer in anatomy.layers
    ]
    assert len({layer["name"] for layer in anatomy.layers}) == 9


def test_groups_are_listed_for_each_layer():
    """channels_per_group=8: one group of 8 channels, two of 16, four of 32; m counts one group."""
    cfg = config("resnet", "group", channels_per_group=8)
    layers = run.preflight(cfg, data()).layers
    assert [layer["num_groups"] for layer in layers] == [1, 1, 1, 2, 2, 2, 4, 4, 4]
    assert [layer["m"] for layer in layers] == [8 * layer["positions"] for layer in layers]


def test_macs_of_an_mlp_are_its_weights():
    anatomy = run.preflight(config(model_args={"hidden": (7, 5)}), data())
    assert anatomy.macs == 64 * 7 + 7 * 5 + 5 * 10


def test_a_summary_holds_the_last_epoch_and_the_median_of_five():
    history = [{"seed": 0, "step": i, "test_error": e} for i, e in enumerate([9, 1, 5, 3, 4, 2])]
    found = run.summary(history)
    assert found["test_error"] == 2
    assert found["test_error_last5"] == 3


def test_lenet_adapts_to_small_images():
    assert len(run.preflight(config("lenet"), data()).layers) == 4
    big = run.preflight(config("lenet"), data(shape=(1, 28, 28)))
    assert [layer["positions"] for layer in big.layers] == [24 * 24, 8 * 8, 1, 1]
