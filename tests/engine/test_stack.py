"""A network in a stack against the network alone."""

import pytest
import torch
from toy_training import CPU, THREE_STEPS, config, data, side_by_side, trained

from bnstudy import norms
from bnstudy.config.capabilities import widens
from bnstudy.data import join
from bnstudy.engine.mapped import Mapped
from bnstudy.engine.stack import make_stack
from bnstudy.engine.train import train
from bnstudy.engine.widen import Widened, widenable
from bnstudy.work import build as run


@pytest.mark.parametrize("kind", [Widened, Mapped])
@pytest.mark.parametrize("norm", ["none", "batch", "ghost", "group", "layer", "instance"])
@pytest.mark.parametrize("model", ["mlp", "lenet", "resnet"])
def test_a_seed_in_a_stack_follows_the_seed_alone(model, norm, kind):
    if norm == "instance" and model != "resnet":
        pytest.skip("instance norm on vectors is refused")
    # not groups of two values: their output is a sign, which amplifies rounding without bound
    extra = {
        "group": {"norm__channels_per_group": 8},
        "ghost": {"norm__group_size": 4, "train__batch_size": 8},
    }
    cfg = config(model__name=model, model__width=2, norm__name=norm, **extra.get(norm, {}))
    d = data()
    stacked, many = trained(cfg, d, (0, 1, 2), kind=kind)
    for i, seed in enumerate((0, 1, 2)):
        alone, one = trained(cfg, d, (seed,))
        scale = alone.flat.abs().max()
        ours, its = stacked.state(i), alone.state(0)
        assert list(ours) == list(its)
        for name, value in its.items():
            assert ours[name].shape == value.shape, name
            assert (ours[name] - value).abs().max() < THREE_STEPS * max(scale, value.abs().max())
        assert many[i]["train_loss"] == pytest.approx(one[0]["train_loss"], rel=THREE_STEPS)
        assert many[i]["test_error"] == one[0]["test_error"]


def test_networks_of_ones_own_are_mapped_and_random_ones_train_alone():
    d = data()
    nets = [run.build(config(), tuple(d.shape), d.num_classes) for _ in range(2)]
    assert type(make_stack(nets, CPU, known=True)) is Widened
    assert type(make_stack(nets, CPU, known=False)) is Mapped
    assert type(make_stack(nets[:1], CPU, known=False)) is Widened
    assert type(make_stack([torch.nn.LayerNorm(8) for _ in range(2)], CPU, known=True)) is Mapped
    standardized = [
        run.build(config(norm__weight_standardization=True), tuple(d.shape), 3) for _ in range(2)
    ]
    assert type(make_stack(standardized, CPU, known=True)) is Mapped
    assert run.stackable(nets[0])
    assert not run.stackable(torch.nn.Sequential(nets[0], torch.nn.Dropout()))


def test_a_norm_of_ones_own_sees_the_channels_of_its_own_network_only(tmp_path, monkeypatch):
    (tmp_path / "own_norm.py").write_text(
        "from torch import nn\nimport torch.nn.functional as F\n"
        "class Own(nn.Module):\n    def forward(self, x): return F.layer_norm(x, x.shape[1:])\n"
        "def make(channels): return Own()\n"
    )
    monkeypatch.chdir(tmp_path)
    cfg = config(norm__name="custom", norm__entry="own_norm:make", model__name="lenet")
    assert not widens(cfg)
    assert widens(config())


def test_standardized_weights_train_in_a_stack_as_alone():
    cfg, d = config(model__name="lenet", norm__weight_standardization=True), data()
    stacked, _ = trained(cfg, d, (0, 1), kind=Mapped)
    alone, _ = trained(cfg, d, (1,))
    for name, value in alone.state(0).items():
        assert torch.allclose(stacked.state(1)[name], value, atol=THREE_STEPS), name


NUMBERS = {
    "lr": [{"optimizer__lr": v} for v in (0.02, 0.3)],
    "weight decay": [
        {"optimizer__weight_decay": v, "optimizer__decay_norm": False} for v in (0.0, 0.1)
    ],
    "momentum": [{"norm__momentum": v} for v in (0.05, 0.4)],
    "lr, adam": [{"optimizer__lr": v, "optimizer__name": "adam"} for v in (0.02, 0.3)],
}


@pytest.mark.parametrize("what", NUMBERS)
def test_networks_that_differ_in_a_number_follow_their_own(what):
    """Each network of a mixed stack ends where it ends alone."""
    d = data()
    configs = [config(**o).model_copy(update={"seed": s}) for o in NUMBERS[what] for s in (0, 1)]
    assert len({c.family for c in configs}) == 1
    stack, rows = side_by_side(d, configs)
    for i, own in enumerate(configs):
        alone, (row,) = side_by_side(d, [own])
        for name, value in alone.state(0).items():
            if what == "lr, adam" and name.endswith(("bias", "running_mean")):
                continue  # in front of a norm its gradient is rounding, which Adam makes large
            difference = (stack.state(i)[name] - value).abs().max()
            assert difference <= THREE_STEPS * value.abs().max().clamp(min=1), (name, own)
        assert rows[i]["lr"] == row["lr"]
        # not the exponential average, which sees those biases
        assert rows[i]["test_loss_precise"] == pytest.approx(row["test_loss_precise"], rel=1e-3)


def test_networks_that_see_different_data_see_their_own():
    one, other = data(seed=0), data(seed=1)
    configs = [config().model_copy(update={"seed": s}) for s in (0, 1, 0)]
    joined = join([one, other], [0, 1, 1])
    nets = [run.build(c, tuple(one.shape), one.num_classes) for c in configs]
    *_, rows = train(make_stack(nets, CPU, known=True), joined, configs)
    for row, own, seen in zip(rows, configs, (one, other, other), strict=True):
        _, (alone,) = side_by_side(seen, [own])
        assert row["test_loss"] == pytest.approx(alone["test_loss"], rel=1e-3)
        assert row["test_error_batch"] == alone["test_error_batch"]


def test_families_are_what_differs_in_numbers_only():
    base = config()
    same = [config(optimizer__lr=0.7), config(data__contrast=0.3), base]
    assert len({c.family for c in same}) == 1
    others = [config(train__batch_size=8), config(norm__name="layer"), config(norm__momentum=None),
              config(data__pixel_noise=0.5), config(optimizer__momentum=0.5)]  # fmt: skip
    assert len({c.family for c in [base, *others]}) == 6


NEED = {
    "ghost": {"group_size": 2},
    "group": {"num_groups": 2},
    "continual": {"num_groups": 2},
    "power": {"warmup": 9},  # before that its output does not follow the calls so far
}


@pytest.mark.parametrize("name", norms.NORMS)
def test_a_norm_widens_with_all_its_marks_or_says_that_it_cannot(name):
    layer = norms.NORMS[name](4, **NEED.get(name, {}))
    layer.is_norm = True
    if name in ("rms", "filter_response", "online", "continual", "noisy"):
        assert not widenable(layer)
        with pytest.raises(norms.CannotWiden, match="3 networks"):
            layer.widened(3)
        return
    wide = layer.widened(3)
    assert wide.is_norm
    assert type(wide) is type(layer)
    assert wide.num_features == 12
    x = torch.randn(8, 12, 5, 5, generator=torch.Generator().manual_seed(0))
    apart = torch.cat([layer(part) for part in x.chunk(3, 1)], 1)
    # the same sums in another layout: a few roundings of 6e-8
    assert torch.allclose(wide(x), apart, atol=1e-5)
