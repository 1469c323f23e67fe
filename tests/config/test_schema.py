"""The schema: which values a run may have, and what is filled in where it is open."""

import pytest
from pydantic import ValidationError

from bnstudy.config import (
    Config,
    EvaluateConfig,
    NormConfig,
    OptimizerConfig,
    Settings,
    TrainConfig,
    axis_keys,
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


def test_every_field_has_a_default():
    """A command line names only what it changes."""
    assert Config() == Config.model_validate({})
    assert Settings().config().cell == Settings.model_validate({}).config().cell


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("data__train_size", 0), ("data__split_seed", -1), ("data__contrast", -0.1),
        ("data__pixel_noise", -0.1), ("data__image_size", 3),
        ("model__depth", 0), ("model__width", 0), ("model__hidden", []), ("model__hidden", [8, 0]),
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


TEXTS = ("model.arch", "task.style", "task.fingerprint")  # that are absent where not used


def test_every_number_and_choice_of_a_run_is_validated():
    """Text fields apart (names are checked against registries), a field accepts no nonsense."""
    for key in [*axis_keys(), "seed"]:
        text = Config().flat().get(key, "" if key in TEXTS else None)
        if isinstance(text, str) and key.rpartition(".")[2] in (
            "name", "fingerprint", "entry", "source", "arch", "style"
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


# --- durations ------------------------------------------------------------------------------------


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


def test_null_that_somebody_gave_is_not_filled_in():
    scale = {"name": "s", "default": {"train_size": 50, "epochs": 3}}
    settings = Settings.model_validate({"scale": scale})
    assert settings.config().data.train_size == 50
    assert settings.config(given=["data.train_size"]).data.train_size is None


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


@pytest.mark.parametrize(
    ("train", "evaluate", "expected"),
    [
        ({"steps": 12_500}, {"steps": 12_500}, (12_500, 12_500, "steps")),  # all of it
        ({"steps": 12_500}, {"steps": 11_875}, (625, 12_500, "steps")),
        ({"steps": 600}, {"steps": 200}, (200, 600, "steps")),  # not 0: the last is the end
        ({"steps": 100}, {"steps": 1_000}, (100, 100, "steps")),
        ({"epochs": 10}, {"every": 9}, (1, 10, "epochs")),
        ({"epochs": 10}, {"every": 4}, (2, 10, "epochs")),
        ({"steps": 600}, {"every": 2}, None),  # how many steps an epoch has, the data say
        ({"epochs": 2}, {"steps": 50}, None),
    ],
)
def test_what_a_final_training_error_is_a_mean_over(train, evaluate, expected):
    found = EvaluateConfig(**evaluate).last_stretch(TrainConfig(**{"epochs": None} | train))
    assert found == expected
