"""Optimisers against torch's own; schedules, decay and averages."""

import math

import pytest
import torch
import torch.nn.functional as F
from toy_training import CPU, config, data, seeded, stack_of, trained

from bnstudy import norms
from bnstudy.data.samplers import batches, epoch_order, generator
from bnstudy.engine.optimizer import Optimizer, step_at
from bnstudy.engine.stack import make_stack
from bnstudy.engine.train import train
from bnstudy.engine.widen import Widened
from bnstudy.work import build as run


@pytest.mark.parametrize(
    "optimizer",
    [
        {"name": "sgd", "momentum": 0.0},
        {"name": "sgd", "momentum": 0.9, "weight_decay": 0.01},
        {"name": "adam", "momentum": 0.8, "lr": 0.01},
    ],
)
def test_the_loop_is_torch_optim_on_the_same_batches(optimizer):
    """A plain loop with torch.optim and a torch.nn norm, in float64: equal to rounding.

    Adam without weight decay: a bias in front of a norm has a gradient of rounding, 1e-17, which
    Adam with weight decay multiplies by lr * decay / eps = 1e4 in each step.
    """
    cfg = config(train__steps=5, **{f"optimizer__{k}": v for k, v in optimizer.items()})
    d = data()
    d = d.with_parts(lambda _, x, y: (x.double(), y))
    stack = stack_of(cfg, d, (4,))
    stack = Widened([stack.net.double()], CPU)
    net = run.build(cfg.model_copy(update={"seed": 4}), tuple(d.shape), d.num_classes).double()
    for index, layer in enumerate(net):
        if isinstance(layer, norms.BatchNorm):
            net[index] = torch.nn.BatchNorm1d(layer.num_features).double()
    o = cfg.optimizer
    plain = (
        torch.optim.SGD(net.parameters(), o.lr, o.momentum, weight_decay=o.weight_decay)
        if o.name == "sgd"
        else torch.optim.Adam(
            net.parameters(), o.lr, (o.momentum, o.beta2), weight_decay=o.weight_decay
        )
    )
    order = batches(epoch_order(len(d.train_y), generator(4, "order")), 4)
    for index in order[:5]:
        plain.zero_grad()
        F.cross_entropy(net(d.train_x[index]), d.train_y[index]).backward()
        plain.step()
    list(train(stack, d, seeded(cfg, (4,))))
    expected = torch.cat([p.detach().reshape(-1) for p in net.parameters()])
    # float64 rounding 1e-16, amplified by at most 1e6 over five steps
    assert torch.allclose(stack.flat, expected, rtol=1e-9, atol=1e-9)
    for name, buffer in net.named_buffers():
        assert torch.allclose(stack.buffers[name].double(), buffer.double(), atol=1e-9), name


def test_schedules():
    d = data()
    make = lambda **o: Optimizer(  # noqa: E731
        [config(**{f"optimizer__{k}": v for k, v in o.items()}).optimizer],
        stack_of(config(), d, (0,)), 8, 180,
    )  # fmt: skip
    step = make(schedule="step", lr=0.4)
    assert [step.lr(s) for s in (0, 59, 60, 119, 120, 179)] == pytest.approx(
        [0.4, 0.4, 0.04, 0.04, 0.004, 0.004]
    )
    cosine = make(schedule="cosine", lr=0.4)
    assert [cosine.lr(s) for s in (0, 90, 180)] == pytest.approx([0.4, 0.2, 0.0])
    assert make(lr=0.4, lr_rule="linear").lr(0) == pytest.approx(0.1)
    assert make(lr=0.4, lr_rule="sqrt").lr(0) == pytest.approx(0.2)


def test_an_exponential_rate_grows_by_its_factor_at_each_step():
    cfg = config(optimizer__schedule="exponential", optimizer__growth=1.5, optimizer__lr=0.2)
    update = Optimizer([cfg.optimizer], stack_of(cfg, data(), (0,)), 4, 10)
    assert [update.lr(step) for step in (0, 1, 2)] == pytest.approx([0.2, 0.3, 0.45])
    assert update.lr(10_000) == math.inf  # 1.5 to this power is beyond a float: no exception
    with pytest.raises(ValueError, match="schedule=exponential"):
        config(optimizer__schedule="cosine", optimizer__growth=1.5)


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
@pytest.mark.parametrize("model", ["mlp", "resnet"])
def test_what_is_not_trainable_keeps_its_initial_values_to_the_bit(model, optimizer):
    """Of gamma, beta, biases and the last layer, with weight decay and momentum."""
    moved = {}
    for kind in ("all", "weights", "hidden_weights"):
        cfg = config(
            model__name=model, model__width=2, optimizer__name=optimizer,
            optimizer__weight_decay=0.1, optimizer__trainable=kind,
        )  # fmt: skip
        stack = stack_of(cfg, data(), (0, 1))
        before = {name: b.clone() for name, b in stack.blocks(stack.flat).items()}
        list(train(stack, data(), seeded(cfg, (0, 1))))
        after = stack.blocks(stack.flat)
        moved[kind] = {name for name, b in after.items() if not torch.equal(b, before[name])}
    shapes = stack.shapes
    assert moved["all"] == shapes.keys()
    weights = [name for name, shape in shapes.items() if len(shape) > 1]
    assert moved["weights"] == set(weights)
    assert moved["hidden_weights"] == set(weights[:-1])


def test_weight_decay_can_leave_gamma_and_beta_alone():
    cfg = config(optimizer__weight_decay=0.1, optimizer__decay_norm=False)
    stack = stack_of(cfg, data(), (0, 1))
    mask = Optimizer([cfg.optimizer], stack, 4, 3)._decay
    found = {name: block.unique().tolist() for name, block in stack.blocks(mask).items()}
    norm_names = {n for n, m in stack.net.named_modules() if isinstance(m, norms.BatchNorm)}
    assert norm_names
    for name, values in found.items():
        expected = 0.1 * (name.rpartition(".")[0] not in norm_names)
        assert values == pytest.approx([expected], rel=1e-6), name


def test_averaged_weights_are_the_mean_of_the_steps_within_their_horizon():
    """Horizon = the whole training: the plain mean over the three steps."""
    cfg, d = config(optimizer__weight_average=12.0), data()
    stack = stack_of(cfg, d, (0,))
    update = Optimizer([cfg.optimizer], stack, 4, 3)
    seen = []
    for step in range(3):
        stack.grad.copy_(torch.randn_like(stack.grad))
        update(step)
        seen.append(stack.flat.clone())
    with update.averaged_weights():
        assert torch.allclose(stack.flat, torch.stack(seen).mean(0), atol=1e-6)
    assert torch.equal(stack.flat, seen[-1])
    _, history = trained(cfg, d, (0,))
    assert history[-1]["test_loss_averaged"] != history[-1]["test_loss"]
    assert "test_error_averaged_precise" in history[-1]


@pytest.mark.parametrize(("horizon", "first"), [(1e9, 0.0), (1e9, 0.6), (8.0, 0.6)])
def test_weights_and_statistics_are_averaged_from_a_fraction_of_training_on(horizon, first):
    """Six steps; from 0.6 on, that is of steps 5 and 6, the plain mean or that of the horizon."""
    cfg = config(
        optimizer__weight_average=horizon, optimizer__average_from=first, train__steps=6
    )  # fmt: skip
    stack = stack_of(cfg, data(), (0, 1))
    update = Optimizer([cfg.optimizer] * 2, stack, 4, 6)
    weights, statistics = [], []
    for step in range(6):
        stack.grad.copy_(torch.randn_like(stack.grad))
        update(step)
        weights.append(stack.flat.clone())
        for name, buffer in stack.buffers.items():
            if name.endswith("running_mean"):
                buffer.normal_()
        statistics.append({n: b.clone() for n, b in stack.buffers.items()})
    begin = 4 if first else 0  # step 4 is the first that is not before 0.6 * 6 = 3.6
    assert torch.allclose(update.average, torch.stack(weights[begin:]).mean(0), atol=1e-6)
    assert update.averaged_statistics.keys() == {
        n for n in stack.buffers if not n.endswith("num_batches_tracked")
    }
    # at step t the optimizer sees the statistics of the forward before it, here of t - 1
    for name, value in update.averaged_statistics.items():
        if name.endswith("running_mean"):
            seen = torch.stack(
                [statistics[t - 1][name] if t else 0 * value for t in range(begin, 6)]
            )
            assert torch.allclose(value, seen.mean(0), atol=1e-6), name


def test_when_to_average_without_an_average_is_refused():
    with pytest.raises(ValueError, match=r"set optimizer\.weight_average"):
        config(optimizer__average_from=0.5)


@pytest.mark.parametrize(
    ("fraction", "total", "step"),
    [(0.55, 100, 55), (1 / 3, 180, 60), (0.8, 180, 144), (0.551, 100, 56), (0, 7, 0), (1, 7, 7)],
)
def test_a_fraction_of_training_begins_at_the_first_step_that_is_not_before_it(
    fraction, total, step
):
    assert step_at(fraction, total) == step


def test_k_of_n_steps_are_k_steps_for_all_k_and_n():
    for total in (*range(1, 300), 99_999):
        for k in range(0, total + 1, max(total // 300, 1)):
            assert step_at(k / total, total) == k, (k, total)


def test_freezing_at_55_percent_of_100_steps_leaves_55_updates():
    stack, _ = trained(config(norm__freeze_at=0.55, train__steps=100), data(), (0,))
    counts = [b for name, b in stack.buffers.items() if name.endswith("num_batches_tracked")]
    assert [int(c) for c in counts] == [55, 55]


def test_a_horizon_shorter_than_a_batch_averages_nothing():
    """The newest weights alone, to the bit; a share above 1 would overshoot at every step."""
    cfg = config(optimizer__weight_average=1.0, train__steps=20)
    _, history = trained(cfg, data(), (0,))
    assert history[-1]["test_loss_averaged"] == history[-1]["test_loss"]


SIZES = {"group": {"num_groups": 1}, "continual": {"num_groups": 1}, "ghost": {"group_size": 2}}


IMAGES = ["batch", "ghost", "group", "layer", "rms", "continual"]


@pytest.mark.parametrize("networks", [1, 2])
@pytest.mark.parametrize(
    ("model", "norm"),
    [("mlp", norm) for norm in IMAGES]
    + [("resnet", norm) for norm in (*IMAGES, "instance", "filter_response")]
    + [("recurrent", norm) for norm in ("batch", "group", "layer")],
)
def test_no_norm_decays_without_decay_norm_alone_and_in_a_stack(model, norm, networks):
    """One step with zero gradient: gamma and beta stay, weights shrink by lr * weight_decay."""
    cfg = config(
        model__name=model, model__width=2, norm={"name": norm, **SIZES.get(norm, {})},
        optimizer__weight_decay=0.5, optimizer__decay_norm=False,
    )  # fmt: skip
    shape = (4, 7) if model == "recurrent" else (1, 8, 8)
    alone = run.build(cfg, shape, 3)
    own = {n for n, m in alone.named_modules() if getattr(m, "is_norm", False)}
    stack = make_stack([run.build(c, shape, 3) for c in seeded(cfg, range(networks))], CPU, True)
    before = {name: b.clone() for name, b in stack.blocks(stack.flat).items()}
    Optimizer([cfg.optimizer] * networks, stack, 4, 3)(0)
    assert own
    for name, block in stack.blocks(stack.flat).items():
        left = 1.0 if name.rpartition(".")[0] in own else 1 - 0.1 * 0.5
        assert torch.allclose(block, left * before[name], rtol=1e-6), name
