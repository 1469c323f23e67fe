"""The schema and its addresses: what is one experiment, and that every field of it is alive."""

import hashlib
from functools import cache
from pathlib import Path

import pytest
import torch
from pydantic import Field, ValidationError

from bnstudy.config import (
    Config,
    NormConfig,
    OptimizerConfig,
    Settings,
    TrainConfig,
    axis_keys,
    flatten,
    schema,
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


# --- addresses ----------------------------------------------------------------------------------

# Golden: results on people's disks are found by these. A change here means that RESULTS_VERSION is
# to be bumped, or that a new field lacks its neutral value.
GOLDEN = {
    "default": (Config(), "adc79479061b0eab", "c1247fe1288309d6"),
    "ghost": (
        config(
            norm__name="ghost", norm__group_size=4, model__name="mlp", train__epochs=2.0, seed=10
        ),
        "037e87e1f60d75ac",
        "f570ed9ba328f867",
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
        "7fbf6de872399df1",
        "31d1f471697ce2cf",
    ),
}


@pytest.mark.parametrize("name", GOLDEN)
def test_addresses_stay_what_they_were(name):
    cfg, address, cell = GOLDEN[name]
    assert (cfg.address, cfg.cell) == (address, cell)


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
    assert parts == {"data.root", "data.download", "data.path"}


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
    monkeypatch.setattr(schema, "RESULTS_VERSION", schema.RESULTS_VERSION + 1)
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
    assert len(Config().address) == schema.ADDRESS_LENGTH == 16
    int(Config().address, 16)


def test_two_addresses_are_two_canonical_forms():
    """Nothing that is hashed is lost on the way: the canonical form gives the config back."""
    cfg = config(norm__name="group", norm__num_groups=2, model__hidden=[3], train__steps=4, seed=3)
    assert Config.model_validate(cfg.canonical()) == cfg
    assert flatten(cfg.canonical()) == cfg.flat()


# --- values -------------------------------------------------------------------------------------


def test_every_field_has_a_default():
    """A command line names only what it changes."""
    assert Config() == Config.model_validate({})
    assert Settings().config().cell == Settings.model_validate({}).config().cell


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("data__train_size", 0), ("data__split_seed", -1), ("data__contrast", -0.1),
        ("data__pixel_noise", -0.1), ("data__image_size", 3),
        ("model__depth", 7), ("model__width", 0), ("model__hidden", []), ("model__hidden", [8, 0]),
        ("norm__eps", 0), ("norm__affine", "all"), ("norm__momentum", 0), ("norm__momentum", 1.1),
        ("norm__group_size", 0), ("norm__num_groups", 0), ("norm__channels_per_group", 0),
        ("norm__freeze_at", 1.1), ("norm__backend", "fast"),
        ("optimizer__name", "lion"), ("optimizer__lr", 0), ("optimizer__lr", -1),
        ("optimizer__lr", float("nan")), ("optimizer__lr", float("inf")),
        ("optimizer__momentum", 1), ("optimizer__beta2", 1), ("optimizer__weight_decay", -1),
        ("optimizer__decay_norm", 3), ("optimizer__lr_rule", "cubic"),
        ("optimizer__reference_batch_size", 0), ("optimizer__schedule", "warm"),
        ("optimizer__milestones", ["x"]), ("optimizer__decay", 0),
        ("train__batch_size", 0), ("train__batch_size", 2.5), ("train__epochs", -1),
        ("train__steps", -1), ("train__examples", -1),
        ("evaluate__every", 0), ("evaluate__large_batch", 1), ("evaluate__precise_examples", 1),
        ("seed", -1), ("norm__typo", 1), ("typo", 1),
    ],
)  # fmt: skip
def test_impossible_values_are_refused(field, value):
    with pytest.raises(ValidationError):
        config(**{field: value})


def test_every_number_and_choice_of_a_run_is_validated():
    """Text fields apart (names are checked against registries), a field accepts no nonsense."""
    for key in [*axis_keys(), "seed"]:
        text = Config().flat().get(key, "" if key == "model.arch" else None)
        if isinstance(text, str) and key.rpartition(".")[2] in (
            "name", "fingerprint", "entry", "source", "arch"
        ):  # fmt: skip
            continue
        with pytest.raises(ValidationError):
            config(**{key.replace(".", "__"): "nonsense"})


def test_a_config_does_not_change():
    with pytest.raises(ValidationError):
        Config().seed = 3  # type: ignore[misc]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"name": "group"}, "exactly one"),
        ({"name": "group", "num_groups": 2, "channels_per_group": 2}, "exactly one"),
        ({"name": "ghost"}, "norm.group_size"),
    ],
)
def test_norms_need_their_groups(given, said):
    with pytest.raises(ValidationError, match=said):
        NormConfig(**given)


# --- durations ----------------------------------------------------------------------------------


def test_two_durations_are_refused():
    with pytest.raises(ValidationError, match=r"train\.epochs=1 and train\.steps=3"):
        TrainConfig(epochs=1, steps=3)


@pytest.mark.parametrize(
    ("given", "train_size", "steps"),
    [
        ({"batch_size": 32, "epochs": 6}, 600, 6 * 18),  # 600 / 32 = 18.75: the rest is dropped
        ({"batch_size": 2, "epochs": 1}, 201, 100),
        ({"batch_size": 32, "epochs": 0.5}, 600, 9),
        ({"batch_size": 32, "epochs": 0}, 600, 0),
        ({"batch_size": 32, "steps": 7}, 600, 7),
        ({"batch_size": 32, "examples": 100}, 600, 3),  # 96 seen, not 128
        ({"batch_size": 1, "examples": 100}, 600, 100),
        ({"batch_size": 32}, 600, 0),
    ],
)
def test_total_steps(given, train_size, steps):
    assert TrainConfig(**given).total_steps(train_size) == steps


@pytest.mark.parametrize("unit", ["epochs", "steps", "examples"])
def test_the_comparison_rule_names_the_unit(unit):
    assert TrainConfig(**{unit: 3}).rule == f"equal {unit}"


def test_the_scale_fills_what_is_left_open_and_nothing_else():
    scale = {"name": "s", "budgets": {"digits": {"train_size": 50, "epochs": 3}}}
    open_ = Settings.model_validate({"scale": scale}).config()
    assert (open_.data.train_size, open_.train.epochs) == (50, 3)
    said = {"scale": scale, "train": {"steps": 4}, "data": {"train_size": 20}}
    closed = Settings.model_validate(said).config()
    assert (closed.data.train_size, closed.train.epochs, closed.train.steps) == (20, None, 4)
    other = {"scale": {**scale, "default": {"epochs": 2}}, "data": {"name": "mnist"}}
    default = Settings.model_validate(other).config()
    assert (default.data.train_size, default.train.epochs) == (None, 2)


def test_a_budget_and_the_same_value_said_are_one_address():
    scale = {"name": "s", "default": {"train_size": 50, "epochs": 3}}
    spelled = {"data": {"train_size": 50}, "train": {"epochs": 3.0}}
    assert (
        Settings.model_validate({"scale": scale}).config().address
        == Settings.model_validate({"scale": scale, **spelled}).config().address
    )


@pytest.mark.parametrize(
    ("seeds", "expected"), [(5, [0, 1, 2, 3, 4]), ([7, 3, 3], [3, 7]), ([0], [0]), (1, [0])]
)
def test_seed_list(seeds, expected):
    assert Settings(seeds=seeds).seed_list() == expected


@pytest.mark.parametrize("seeds", [0, -2, [], [1, -1]])
def test_seeds_that_are_none(seeds):
    with pytest.raises(ValueError, match="seeds must be"):
        Settings(seeds=seeds).seed_list()


@pytest.mark.parametrize(
    ("rule", "factor"), [("none", 1), ("linear", 1 / 16), ("sqrt", 1 / 4)]
)  # at batch 2 against 32
def test_the_learning_rate_follows_the_batch_size(rule, factor):
    optimizer = OptimizerConfig(lr=0.8, lr_rule=rule, reference_batch_size=32)
    assert optimizer.lr_at(2) == pytest.approx(0.8 * factor, rel=1e-15)
    assert optimizer.lr_at(32) == 0.8


# --- liveness -----------------------------------------------------------------------------------

TINY = {
    "data__train_size": 40,
    "model__name": "mlp",
    "model__hidden": [6],
    "train__batch_size": 8,
    "train__steps": 7,
    "evaluate__large_batch": 100,
}
RESNET = {"model__name": "resnet", "model__width": 2, "train__steps": 2}
PARITY = {
    "data__name": "parity", "data__length": 12, "model__name": "recurrent", "train__steps": 2,
}  # fmt: skip
ROWS = {"data__sequence": "rows", "model__name": "recurrent", "train__steps": 2}
# field -> (what else is set so that the field matters, the other value)
FLIPS = {
    "data.name": ({"data__root": "images"}, "image_folder"),
    "data.train_size": ({}, 41),
    "data.split_seed": ({}, 1),
    "data.contrast": ({}, 0.5),
    "data.pixel_noise": ({}, 0.1),
    "data.noise_every_step": ({"data__pixel_noise": 0.1}, True),
    "data.image_size": ({"data__name": "image_folder", "data__root": "images"}, 6),
    "data.entry": ({"data__name": "custom", "data__entry": "own_parts:data"}, "own_parts:other"),
    "model.name": ({}, "lenet"),
    "model.depth": (RESNET, 14),
    "model.width": (RESNET, 3),
    "model.hidden": ({}, [7]),
    "model.entry": ({"model__name": "custom", "model__entry": "own_parts:net"}, "own_parts:wide"),
    "norm.name": ({}, "layer"),
    "norm.eps": ({}, 1e-2),
    "norm.affine": ({}, "gamma"),
    "norm.momentum": ({}, 0.5),
    "norm.group_size": ({"norm__name": "ghost", "norm__group_size": 2}, 4),
    "norm.num_groups": ({"norm__name": "group", "norm__num_groups": 2}, 3),
    "norm.channels_per_group": ({"norm__name": "group", "norm__channels_per_group": 2}, 3),
    "norm.freeze_at": ({}, 0.5),
    "norm.gamma_init": ({}, 0.5),
    "norm.evaluation": ({}, "batch"),
    "norm.prior_examples": ({"norm__evaluation": "mixture", "norm__prior_examples": 1.0}, 9.0),
    "norm.alpha": ({**RESNET, "norm__evaluation": "example", "norm__alpha": 0.1}, 0.9),
    "norm.r_max": ({"norm__r_max": 3.0, "norm__d_max": 5.0}, 1.0),
    "norm.d_max": ({"norm__r_max": 3.0, "norm__d_max": 5.0}, 0.0),
    "norm.renorm_warmup": ({"norm__r_max": 3.0, "norm__d_max": 5.0}, (2, 9, 9)),
    "norm.weight_standardization": ({}, True),
    "model.arch": ({"model__name": "torchvision", "model__arch": "resnet18"}, "mnasnet0_5"),
    "norm.entry": ({"norm__name": "custom", "norm__entry": "own_parts:norm"}, "own_parts:none"),
    "optimizer.name": ({}, "adam"),
    "optimizer.lr": ({}, 0.05),
    "optimizer.momentum": ({}, 0.5),
    "optimizer.beta2": ({"optimizer__name": "adam"}, 0.9),
    "optimizer.weight_decay": ({}, 0.1),
    "optimizer.decay_norm": ({"optimizer__weight_decay": 0.1}, False),
    "optimizer.lr_rule": ({}, "sqrt"),
    "optimizer.reference_batch_size": ({}, 64),
    "optimizer.schedule": ({}, "cosine"),
    "optimizer.milestones": ({}, [0.5]),
    "optimizer.decay": ({}, 0.5),
    "train.batch_size": ({}, 4),
    "train.epochs": ({"train__steps": None, "train__epochs": 1.0}, 2.0),
    "train.steps": ({}, 6),
    "train.examples": ({"train__steps": None, "train__examples": 40}, 24),
    "evaluate.every": ({"train__steps": 15}, 2),
    "evaluate.large_batch": ({}, 50),
    "evaluate.precise_examples": ({}, 20),
    "seed": ({}, 1),
    "train.classes_per_batch": ({}, 2),
    "train.classes_per_task": ({}, 2),
    "optimizer.weight_average": ({}, 50.0),
    "evaluate.online": ({}, True),
    "evaluate.steps": ({}, 1),
    "data.sequence": (ROWS, "pixels"),
    "data.length": (PARITY, 13),
    "data.min_length": (PARITY, 4),
    "model.cell": (PARITY, "gru"),
    "model.recurrent_init": (PARITY, "identity"),
    "model.initial_noise": (PARITY, 0.1),
    "norm.scope": (PARITY, "sequence"),
    "norm.min_count": ({**PARITY, "data__min_length": 2}, 5),
    "optimizer.clip_norm": ({}, 0.01),
}
NOT_FLIPPED = {
    "train.processes": "in processes of their own, see tests/engine/test_distributed.py",
    "norm.sync": "with several processes only, see tests/engine/test_distributed.py",
    "train.precision": "set on the stack by the worker, see tests/engine",
    "evaluate.probes": "more columns beside the same ones, see tests/probes",
    "norm.time_steps": "for test sequences beyond it, see tests/norms/test_step_batch_norm.py",
    "norm.below_min": "an error in the place of a result, see tests/norms/test_step_batch_norm.py",
    "data.fingerprint": "found from the files, not set: other files are other examples",
    "data.source": "found from the entry's source, not set",
    "model.source": "found from the entry's source, not set",
    "norm.source": "found from the entry's source, not set",
    "norm.backend": "the same mathematics by another kernel: equal up to rounding, see tests/norms",
}


def test_every_field_of_the_address_is_flipped_or_excused():
    fields = {*axis_keys(), "seed"}
    assert fields >= set(Config().flat())
    assert fields == FLIPS.keys() | NOT_FLIPPED.keys()
    assert not FLIPS.keys() & NOT_FLIPPED.keys()


OWN_PARTS = """
import torch
from torch import nn
from bnstudy.data import Dataset


def data(config, shift=0):
    x = torch.rand(60, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    y = (torch.arange(60) + shift) % 10
    return Dataset(x, y, x[:20], y[:20], x[20:40], y[20:40], num_classes=10)


def other(config):
    return data(config, shift=torch.arange(60) // 10)


def net(config, shape, num_classes, norm, width=5):
    return nn.Sequential(
        nn.Flatten(), nn.Linear(64, width), norm(width), nn.Linear(width, num_classes)
    )


def wide(*args):
    return net(*args, width=6)


def norm(channels):
    return nn.LayerNorm(channels)


def none(channels):
    return nn.Identity()
"""


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    """A folder with parts of one's own and a folder of images; the working directory."""
    import numpy as np
    from PIL import Image

    folder = tmp_path_factory.mktemp("parts")
    (folder / "own_parts.py").write_text(OWN_PARTS)
    pixels = np.random.default_rng(0).integers(0, 255, (2, 40, 10, 8), dtype=np.uint8)
    for label, images in zip("ab", pixels, strict=True):
        (folder / "images" / label).mkdir(parents=True)
        for i, image in enumerate(images):
            Image.fromarray(image).save(folder / "images" / label / f"{i}.png")
    return folder


PREFIXES = ("train_", "val_", "test_", "online_")


@cache
def outcome(cfg: Config) -> str:
    """Hash of the final parameters and of every measurement of every evaluation.

    Not of what a row merely repeats from the config (lr, examples, epoch): that would keep a dead
    field alive.
    """
    from bnstudy import data
    from bnstudy.engine.train import train
    from bnstudy.engine.widen import Widened
    from bnstudy.work import trainer as run

    examples = data.load(cfg.data)
    net = run.build(cfg, tuple(examples.shape), examples.num_classes)
    stack = Widened([net], torch.device("cpu"))
    found = hashlib.sha256()
    for (row,) in train(stack, examples, [cfg]):
        metrics = [(k, v) for k, v in row.items() if k.startswith(PREFIXES)]
        found.update(repr(sorted(metrics)).encode())
    found.update(stack.flat.numpy().tobytes())
    return found.hexdigest()


@pytest.mark.parametrize("field", FLIPS)
def test_every_field_is_alive(field, parts, monkeypatch):
    monkeypatch.chdir(parts)
    monkeypatch.syspath_prepend(parts)
    context, other = FLIPS[field]
    base = {**TINY, **context}
    before, after = config(**base), config(**{**base, field.replace(".", "__"): other})
    assert before.address != after.address, "the flip is no flip"
    assert outcome(before) != outcome(after)


def test_what_is_not_flipped_gives_the_same_bits():
    """The control of the liveness test: without it any noise would look like life."""
    assert outcome(config(**TINY)) == outcome.__wrapped__(config(**TINY))
    moved = config(**TINY, data__root=str(Path.cwd()), data__download=True)
    assert outcome.__wrapped__(moved) == outcome(config(**TINY))
