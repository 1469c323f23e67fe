"""Addresses: what is one experiment."""

import pytest
from pydantic import Field

from bnstudy.config import (
    ADDRESS_LENGTH,
    Config,
    NormConfig,
    address,
    axis_keys,
    flatten,
    schema_keys,
)


def config(**flat) -> Config:
    """A Config from dotted names with `__` for the dot."""
    tree: dict = {}
    for key, value in flat.items():
        part, _, name = key.partition("__")
        if name:
            tree.setdefault(part, {})[name] = value
        else:
            tree[part] = value
    return Config.model_validate(tree)


# Golden: results on people's disks are found by these. A change here means that RESULTS_VERSION is
# to be bumped, or that a new field lacks its neutral value.
GOLDEN = {
    "default": (Config(), "0fefedcde499a741", "13e7165db750be3f"),
    "ghost": (
        config(
            norm__name="ghost", norm__group_size=4, model__name="mlp", train__epochs=2.0, seed=10
        ),
        "2a3807dd78d5034a",
        "256e2ad48c02ff45",
    ),
    "from disk": (
        config(
            data__name="mnist",
            data__fingerprint="0123456789abcdef",
            data__root="anywhere",
            norm__name="group",
            norm__channels_per_group=8,
            optimizer__name="adam",
            optimizer__milestones=[0.5],
            train__steps=100,
            seed=3,
        ),
        "55775e1a734f6681",
        "208f31d5d8396d66",
    ),
}


@pytest.mark.parametrize("name", GOLDEN)
def test_addresses_stay_what_they_were(name):
    cfg, *wanted = GOLDEN[name]
    assert [cfg.address, cfg.cell] == wanted


@pytest.mark.parametrize("lr", [1, 1.0, "1e0", "1"])
def test_one_number_is_one_address_however_it_is_written(lr):
    assert config(optimizer__lr=lr).address == config(optimizer__lr=1.0).address


def test_where_data_lie_is_not_in_the_address():
    here = config(data__root="/a", data__download=True)
    assert here.address == config(data__root="/b").address == Config().address
    assert not {"data.root", "data.download"} & here.flat().keys()


def test_every_machine_field_is_outside_the_address():
    machines = set(schema_keys()) - set(axis_keys())
    parts = {key for key in machines if key.partition(".")[0] in Config.model_fields}
    assert parts == {"data.root", "data.download", "data.path", "task.style_path"}


def test_a_label_names_what_a_norm_does_unlike_its_default():
    assert config().label == "digits resnet batch B=32"
    assert config(norm__gamma_init=0.1).label == "digits resnet batch (gamma_init=0.1) B=32"
    ghost = config(norm__name="ghost", norm__group_size=4, norm__momentum=None)
    assert ghost.label == "digits resnet ghost (momentum=None, group_size=4) B=32"


def test_a_cell_leaves_out_the_seed_and_nothing_else():
    assert config(seed=0).cell == config(seed=7).cell
    assert config(seed=0).address != config(seed=7).address
    assert config(optimizer__lr=0.2).cell != Config().cell


def test_the_version_of_results_is_in_the_address(monkeypatch):
    before = Config().address
    monkeypatch.setattr(address, "RESULTS_VERSION", address.RESULTS_VERSION + 1)
    assert Config().address != before


class GrownNorm(NormConfig):
    temperature: float = Field(1.0, json_schema_extra={"neutral": 1.0})


class GrownConfig(Config):
    norm: GrownNorm = GrownNorm()


def test_a_new_field_with_its_neutral_value_keeps_old_addresses():
    assert GrownConfig().address == Config().address
    assert GrownConfig(norm=GrownNorm(temperature=2.0)).address != Config().address


def test_a_new_field_without_a_neutral_value_would_change_them():
    class Careless(Config):
        extra: int = 0

    assert Careless().address != Config().address


def test_an_address_is_sixteen_hexadecimal_digits():
    assert len(Config().address) == ADDRESS_LENGTH == 16
    int(Config().address, 16)


def test_two_addresses_are_two_canonical_forms():
    """Nothing that is hashed is lost on the way: the canonical form gives the config back."""
    cfg = config(norm__name="group", norm__num_groups=2, model__hidden=[3], train__steps=4, seed=3)
    assert Config.model_validate(cfg.canonical()) == cfg
    assert flatten(cfg.canonical()) == cfg.flat()
