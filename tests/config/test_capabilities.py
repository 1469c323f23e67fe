"""The table of capabilities says what the code does, row by row."""

import inspect
import itertools
from importlib.util import find_spec
from typing import get_args

import pytest
import torch

from bnstudy import data, models, norms
from bnstudy.config import Config, DataConfig, ModelConfig, NormConfig, OptimizerConfig
from bnstudy.config.capabilities import (
    DATA,
    MODELS,
    NETWORK,
    NORMS,
    OPTIMIZERS,
    STANDARDIZED,
    mixable,
    own_copy,
    refusal,
    unused,
    widens,
)
from bnstudy.engine.mapped import Mapped
from bnstudy.engine.stack import make_stack
from bnstudy.normtools.fold import fold
from bnstudy.work.build import build, stackable

OWN_MODELS = [name for name, row in MODELS.items() if row.widens]
OWN_NORMS = [name for name in NORMS if name != "custom"]
NEEDED = {  # what a norm cannot be built without
    "ghost": {"group_size": 2},
    "group": {"num_groups": 2},
    "continual": {"num_groups": 2},
}
# a norm's argument -> the setting that decides on it, where the names differ
NAMES = {"frozen": "freeze_at", "process_group": "sync"}


def config(model: str, norm: str, **settings) -> Config:
    # of deep the plain network: in a residual one no norm stands behind a layer alone
    tree = {"model": {"name": model, "width": 2, "hidden": (6,), "residual": model != "deep"},
            "norm": {"name": norm, **NEEDED.get(norm, {}), **settings}}  # fmt: skip
    return Config.model_validate(tree)


def pairs() -> list[tuple[str, str]]:
    """Own models with the norms that may stand in them."""
    return [
        (model, norm)
        for model, norm in itertools.product(OWN_MODELS, OWN_NORMS)
        if not MODELS[model].recurrent or NORMS[norm].recurrent is not None
    ]


def network(cfg: Config) -> torch.nn.Module:
    sequences = MODELS[cfg.model.name].inputs == ("sequences",)
    return build(cfg, (3, 7) if sequences else (1, 8, 8), 10)


def test_every_choice_has_a_row():
    assert MODELS.keys() == models.MODELS.keys()
    assert NORMS.keys() == norms.NORMS.keys() | {"custom"}
    assert DATA.keys() == data.DATASETS.keys()
    assert set(OPTIMIZERS) == set(get_args(OptimizerConfig.model_fields["name"].annotation))


@pytest.mark.parametrize(
    ("rows", "part", "more"),
    [
        (MODELS, ModelConfig, ()),
        (NORMS, NormConfig, (*NETWORK, *STANDARDIZED)),
        (DATA, DataConfig, ()),
        (OPTIMIZERS, OptimizerConfig, ()),
    ],
)
def test_every_setting_is_used_by_some_choice_and_none_is_made_up(rows, part, more):
    used = {name for row in rows.values() for name in row.settings} | set(more)
    if rows is NORMS:
        used |= {name for row in rows.values() for name in row.recurrent or ()}
    assert used == part.model_fields.keys() - {"name"}


def arguments(kind: type) -> set[str]:
    """The settings that a norm's class takes as arguments."""
    taken = {NAMES.get(name, name) for name in norms.parameters_of(kind)}
    return taken & NormConfig.model_fields.keys()


@pytest.mark.parametrize("name", OWN_NORMS)
def test_a_norm_uses_the_settings_that_its_class_takes(name):
    # instance norm's momentum acts with track_running_stats only, which no setting turns on
    idle = {"momentum"} if name == "instance" else set()
    assert set(NORMS[name].settings) == arguments(norms.NORMS[name]) - idle
    if NORMS[name].recurrent is not None:
        kind = norms.StepBatchNorm if name == "batch" else norms.NORMS[name]
        assert set(NORMS[name].recurrent) == arguments(kind)


@pytest.mark.parametrize("name", OWN_MODELS)
def test_a_model_uses_the_settings_that_its_code_reads(name):
    """A setting is read as `config.<setting>` in the file of the model's builder."""
    source = inspect.getsource(inspect.getmodule(models.MODELS[name]))
    read = {field for field in ModelConfig.model_fields if f"config.{field}" in source}
    assert read - {"name"} == set(MODELS[name].settings)


@pytest.mark.parametrize(("model", "norm"), pairs())
def test_networks_widen_exactly_where_the_table_says_so(model, norm):
    cfg = config(model, norm)
    stack = make_stack([network(cfg), network(cfg)], torch.device("cpu"), known=True)
    assert widens(cfg) is not isinstance(stack, Mapped)


def test_standardized_weights_do_not_widen():
    cfg = config("lenet", "group", weight_standardization=True)
    stack = make_stack([network(cfg), network(cfg)], torch.device("cpu"), known=True)
    assert isinstance(stack, Mapped)
    assert not widens(cfg)
    assert not mixable(cfg)


@pytest.mark.parametrize(("model", "norm"), pairs())
def test_networks_stack_and_compile_exactly_where_the_table_says_so(model, norm):
    net = network(config(model, norm))
    assert stackable(net) is (MODELS[model].stackable and NORMS[norm].stackable)
    assert getattr(net, "compiles", True) is MODELS[model].compiles


def folded(net: torch.nn.Module) -> bool:
    try:
        return bool(fold(net.eval(), torch.randn(4, 1, 8, 8)).folded)
    except (ValueError, RuntimeError):  # not traceable, or no such input
        return False


@pytest.mark.parametrize(("model", "norm"), [p for p in pairs() if p[1] != "instance"])
def test_batch_norm_folds_exactly_where_the_table_says_so(model, norm):
    assert folded(network(config(model, norm))) is (MODELS[model].foldable and NORMS[norm].foldable)


def test_embedded_data_need_no_file_and_are_small():
    """A stack may hold a copy for each of 8 networks and more: 50 MB each at most."""
    for name, row in DATA.items():
        if row.embedded and (name != "patches" or find_spec("skimage")):
            found = data.load(DataConfig(name=name))
            assert sum(x.numel() for _, x, _ in found.parts()) * 4 < 50e6
            assert row.tiny is (found.shape[1:] == (8, 8))
    assert not DATA["mnist"].embedded


@pytest.mark.parametrize("name", [n for n, row in DATA.items() if row.embedded])
def test_seeds_have_tensors_of_their_own_exactly_where_the_table_says_so(name):
    if name == "patches" and not find_spec("skimage"):
        pytest.skip("scikit-image is not installed")
    for settings in [{}] if DATA[name].made else [{}, {"contrast": 1.0}, {"pixel_noise": 0.1}]:
        cfg = DataConfig(name=name, train_size=20, **settings)
        stack = data.load_many([(cfg, 0), (cfg, 1)])
        assert bool(stack.infos) is own_copy(cfg)


@pytest.mark.parametrize("name", [n for n, row in DATA.items() if row.length])
def test_made_sequences_have_the_length_of_the_table(name):
    assert data.resolve(DataConfig(name=name)).length == DATA[name].length
    found = data.load(DataConfig(name=name, train_size=16))
    assert found.shape[1] == DATA[name].length
    assert DATA[name].inputs == ("sequences",)


@pytest.mark.parametrize(
    ("model", "norm", "key", "said"),
    [
        ("mlp", "layer", "norm.group_size", "layer norm has no group_size. .* norm=batch, ghost,"),
        ("mlp", "batch", "norm.scope", "norm=batch in a recurrent network"),
        ("mlp", "batch", "model.width", "mlp model has no width.* model=resnet, vgg, deep,"),
        ("recurrent", "layer", "norm.r_max", "layer norm in a recurrent network has no r_max.*"
                                             "norm=batch in a recurrent network"),
        ("mlp", "batch", "optimizer.beta2", "sgd optimizer has no beta2.* optimizer=adam"),
        ("mlp", "batch", "data.length", "digits data has no length.* data=text, adding, parity"),
    ],
)  # fmt: skip
def test_a_refusal_names_who_has_the_setting(model, norm, key, said):
    cfg = config(model, norm)
    assert key in unused(cfg)
    with pytest.raises(ValueError, match=said):
        raise refusal(key, 3, cfg)
