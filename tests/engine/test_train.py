"""The loop by counting, against torch's own optimisers, and its promises on bits."""

import math
from dataclasses import replace
from functools import partial

import pytest
import torch
import torch.nn.functional as F

from bnstudy import norms
from bnstudy.config import Config
from bnstudy.data import Dataset, join
from bnstudy.data.samplers import batches, epoch_order, evaluation_order, generator
from bnstudy.engine.evaluate import Look
from bnstudy.engine.optimizer import Optimizer
from bnstudy.engine.train import diverged_at, train
from bnstudy.engine.vectorize import Folded, Mapped, make_stack
from bnstudy.work import trainer as run

CPU = torch.device("cpu")
# float32 rounding (6e-8) through three steps of a network with about a thousand operations each,
# differences amplified by 1 / std of a batch of four: measured a few 1e-6, bounded here by 1e-4
THREE_STEPS = 1e-4


def data(n=24, classes=3, side=8, seed=0) -> Dataset:
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(3 * n, 1, side, side, generator=g)
    y = torch.randint(0, classes, (3 * n,), generator=g)
    parts = (x[:n], y[:n], x[n : 2 * n], y[n : 2 * n], x[2 * n :], y[2 * n :])
    return Dataset(*parts, num_classes=classes)


def config(**overrides) -> Config:
    plain = {
        "model": {"name": "mlp", "hidden": (6, 5)},
        "optimizer": {"lr_rule": "none", "schedule": "constant", "lr": 0.1},
        "train": {"batch_size": 4, "steps": 3},
    }
    for key, value in overrides.items():
        part, _, name = key.partition("__")
        plain.setdefault(part, {})[name] = value
    if "train__epochs" in overrides or "train__examples" in overrides:
        del plain["train"]["steps"]
    return Config.model_validate(plain)


def stack_of(cfg, dataset, seeds, kind=Folded):
    shape = tuple(dataset.shape)
    nets = [
        run.build(cfg.model_copy(update={"seed": s}), shape, dataset.num_classes) for s in seeds
    ]
    return kind(nets, CPU)


def seeded(cfg, seeds):
    return [cfg.model_copy(update={"seed": s}) for s in seeds]


def trained(cfg, dataset, seeds, on_step=lambda step, total: None, kind=Folded):
    stack = stack_of(cfg, dataset, seeds, kind)
    history = [
        row for rows in train(stack, dataset, seeded(cfg, seeds), (), on_step) for row in rows
    ]
    return stack, history


def test_zero_steps_change_nothing_and_are_evaluated():
    cfg, d = config(train__steps=0), data()
    before = stack_of(cfg, d, (0, 1))
    after, history = trained(cfg, d, (0, 1))
    assert torch.equal(before.flat, after.flat)
    assert all(torch.equal(before.buffers[k], after.buffers[k]) for k in before.buffers)
    assert [r["seed"] for r in history] == [0, 1]
    assert history[0]["step"] == 0


@pytest.mark.parametrize("model", ["mlp", "lenet", "resnet"])
def test_two_steps_change_every_parameter_and_buffer(model):
    cfg, d = config(model__name=model, train__steps=2), data()
    before, (after, _) = stack_of(cfg, d, (0, 1)), trained(cfg, d, (0, 1))
    blocks = before.blocks(before.flat), after.blocks(after.flat)
    pieces = zip(blocks[0].items(), blocks[1].values(), strict=True)
    # a bias in front of a norm has a gradient of rounding only: the norm subtracts it again
    for (name, old), new in pieces:
        if name.endswith("bias") and model != "resnet":
            continue
        assert not torch.equal(old[0], new[0]), name
        assert not torch.equal(old[1], new[1]), name
    for name, old in before.buffers.items():
        assert not torch.equal(old, after.buffers[name]), name


def test_on_step_is_called_once_for_each_step_and_rows_come_at_epochs():
    calls = []
    cfg = config(train__epochs=2.5, train__batch_size=4)
    _, history = trained(cfg, data(), (3,), lambda step, total: calls.append((step, total)))
    assert calls == [(i, 15) for i in range(15)]
    assert [(r["step"], r["epoch"], r["examples"]) for r in history] == [
        (6, 1.0, 24), (12, 2.0, 48), (15, 2.5, 60)]  # fmt: skip


@pytest.mark.parametrize(
    ("settings", "steps"),
    [
        ({"train__epochs": 3.5}, [6, 12, 18, 21]),
        ({"train__epochs": 4, "evaluate__every": 2}, [12, 24]),
        ({"train__steps": 5, "evaluate__steps": 2}, [2, 4, 5]),
        ({"train__steps": 2}, [2]),
    ],
)
def test_when_it_is_evaluated(settings, steps):
    _, history = trained(config(**settings), data(), (0,))
    assert [row["step"] for row in history] == steps


@pytest.mark.parametrize("kind", [Folded, Mapped])
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


def test_the_same_command_gives_the_same_bits():
    cfg, d = config(model__name="resnet", model__width=2), data()
    first, history = trained(cfg, d, (0, 1))
    second, again = trained(cfg, d, (0, 1))
    assert torch.equal(first.flat, second.flat)
    assert history == again


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
    stack = Folded([stack.net.double()], CPU)
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


def test_freezing_stops_the_statistics_and_not_the_weights():
    cfg, d = config(norm__freeze_at=0.5, train__steps=4), data()
    half, _ = trained(config(train__steps=2), d, (0,))
    full, _ = trained(cfg, d, (0,))
    for name, buffer in half.buffers.items():
        assert torch.equal(buffer, full.buffers[name]), name
    assert not torch.equal(half.flat, full.flat)


def test_divergence_is_data():
    cfg, d = config(optimizer__lr=1e30, norm__name="none", train__steps=6), data()
    _, history = trained(cfg, d, (0, 1))
    last = history[-1]
    assert last["diverged_at"] is not None
    assert last["test_error"] == pytest.approx(2 / 3)  # chance among three classes
    assert math.isnan(last["test_loss"])
    losses = torch.tensor([[1.0, math.inf, 1.0], [1.0, 1.0, 1.0]])
    assert diverged_at(losses) == [1, None]


@pytest.mark.parametrize("model", ["mlp", "resnet"])
def test_batch_statistics_of_groups_are_those_of_separate_batches(model):
    """Scoring n examples in groups of b in one forward = n / b forwards of b."""
    cfg = config(model__name=model, model__width=2)
    d = data(n=30)
    stack, _ = trained(cfg, d, (0, 1))
    with stack.training(False), norms.evaluation_mode(stack.net, "batch", 4):
        together = Look(stack, d, cfg, (0, 1), None).score("test", 4)
        index = torch.stack([evaluation_order(30, seed, 4)[0] for seed in (0, 1)], dim=1)
        logits = torch.cat([stack.predict(d.test_x[part]) for part in index.split(4)])[:30]
    wanted = d.test_y[index[:30]]
    error = (logits.argmax(-1) != wanted).float().mean(0)
    loss = torch.stack([F.cross_entropy(logits[:, i], wanted[:, i]) for i in range(2)])
    assert torch.equal(together[1], error)
    assert torch.allclose(together[0], loss, rtol=1e-5)


def test_precise_statistics_are_two_pass_moments_in_the_first_layer():
    cfg = config(evaluate__large_batch=6)
    d = data(n=24)
    stack, _ = trained(cfg, d, (0, 1))
    before = {k: b.clone() for k, b in stack.buffers.items()}
    with stack.training(False):
        found = Look(stack, d, cfg, (0, 1), None).precise_statistics()
    assert all(torch.equal(b, stack.buffers[k]) for k, b in before.items())
    name = next(iter(norms.batch_norms(stack.net)))
    found = {k: v.view(2, -1) for k, v in found.items()}
    for i in range(2):
        weights = stack.parameters(i)
        inner = F.linear(d.train_x.flatten(1), weights["1.weight"], weights["1.bias"])
        assert torch.allclose(found[f"{name}.running_mean"][i], inner.mean(0), atol=1e-5)
        assert torch.allclose(
            found[f"{name}.running_var"][i], inner.var(0, correction=0), rtol=1e-5
        )


def test_networks_of_ones_own_are_mapped_and_random_ones_train_alone():
    d = data()
    nets = [run.build(config(), tuple(d.shape), d.num_classes) for _ in range(2)]
    assert type(make_stack(nets, CPU, known=True)) is Folded
    assert type(make_stack(nets, CPU, known=False)) is Mapped
    assert type(make_stack(nets[:1], CPU, known=False)) is Folded
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
    assert not run.folds(cfg)
    assert run.folds(config())


def test_a_worker_compiles_more_graphs_than_torch_allows_by_itself(monkeypatch):
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="aot_eager"))
    d = data()
    for size in range(2, 12):
        stack = stack_of(config(train__batch_size=size), d, (0, 1))
        stack.compile()
        found = stack.gradient(d.train_x[:size, None].expand(-1, 2, -1, -1, -1), torch.ones(
            size, 2, dtype=torch.long
        ))  # fmt: skip
        assert found[0].isfinite().all()


def test_weights_start_alike_in_all_arms():
    d = data()
    nets = [
        run.build(config(norm__name=n, model__name="resnet"), tuple(d.shape), d.num_classes)
        for n in ("batch", "layer", "none")
    ]
    convolutions = [
        [m.weight for m in net.modules() if isinstance(m, torch.nn.Conv2d)] for net in nets
    ]
    for others in zip(*convolutions, strict=True):
        assert torch.equal(others[0], others[1])
        assert torch.equal(others[0], others[2])


def test_standardized_weights_train_in_a_stack_as_alone():
    cfg, d = config(model__name="lenet", norm__weight_standardization=True), data()
    stacked, _ = trained(cfg, d, (0, 1), kind=Mapped)
    alone, _ = trained(cfg, d, (1,))
    for name, value in alone.state(0).items():
        assert torch.allclose(stacked.state(1)[name], value, atol=THREE_STEPS), name


def side_by_side(dataset, configs):
    """The networks of some configs as one stack, trained: final weights and last rows."""
    nets = [run.build(c, tuple(dataset.shape), dataset.num_classes) for c in configs]
    stack = make_stack(nets, CPU, known=True)
    *_, last = train(stack, dataset, configs)
    return stack, last


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


def test_online_error_is_that_of_predictions_before_learning():
    cfg = config(evaluate__online=True, train__steps=1, train__batch_size=8)
    d = data()
    before = stack_of(cfg, d, (0, 1))
    index = torch.stack(
        [batches(epoch_order(24, generator(s, "order")), 8)[0] for s in (0, 1)], dim=1
    )
    x, y = d.take("train", index)
    with before.training(False):
        expected = (before.predict(x).argmax(-1) != y).float().mean(0)
    _, history = trained(cfg, d, (0, 1))
    assert [r["online_error"] for r in history] == expected.tolist()


def test_fresh_noise_is_drawn_at_each_step_from_the_seeds_own_stream():
    d = replace(data(), noise=torch.full((1, 1, 1), 0.5))
    streams = [generator(3, "noise")]
    index = torch.arange(4)[:, None]
    first, _ = d.take("train", index, streams)
    second, _ = d.take("train", index, streams)
    again = generator(3, "noise")
    for drawn in (first, second):
        noise = 0.5 * torch.randn(4, 1, 8, 8, generator=again)
        assert torch.equal(drawn[:, 0], d.train_x[:4] + noise)
    assert torch.equal(d.take("train", index)[0][:, 0], d.train_x[:4])


@pytest.mark.parametrize("model", ["mlp", "lenet"])
def test_bf16_trains_near_float32(model):
    cfg, d = config(model__name=model), data()
    _, full = trained(cfg, d, (0, 1))
    stack = stack_of(cfg, d, (0, 1))
    stack.precision = "bf16"
    *_, rows = train(stack, d, seeded(cfg, (0, 1)))
    assert stack.flat.dtype == torch.float32
    for row, other in zip(rows, full[-2:], strict=True):
        assert row["train_loss"] != other["train_loss"]
        # three steps: 8 bits of mantissa, 4e-3 each, through a handful of layers
        assert row["train_loss"] == pytest.approx(other["train_loss"], rel=0.1)


@pytest.mark.slow
@pytest.mark.parametrize("norm", ["batch", "group", "ghost"])
@pytest.mark.parametrize("model", ["lenet", "resnet"])
def test_a_compiled_stack_follows_a_single_eager_run(model, norm):
    extra = {
        "group": {"norm__channels_per_group": 8},
        "ghost": {"norm__group_size": 4, "train__batch_size": 8},
    }
    cfg, d = config(model__name=model, norm__name=norm, **extra.get(norm, {})), data()
    stack = stack_of(cfg, d, (0, 1, 2))
    stack.compile()
    *_, rows = train(stack, d, seeded(cfg, (0, 1, 2)))
    for i in range(3):
        alone, one = trained(cfg, d, (i,))
        for name, value in alone.state(0).items():
            difference = (stack.state(i)[name] - value).abs().max()
            assert difference <= THREE_STEPS * value.abs().max().clamp(min=1), name
        assert rows[i]["train_loss"] == pytest.approx(one[-1]["train_loss"], rel=1e-4)


def final_losses(cfg, dataset, seeds, compiled=False, together=True):
    """Training loss of the last epoch, by seed."""
    groups = [seeds] if together else [(s,) for s in seeds]
    found = []
    for group in groups:
        stack = stack_of(cfg, dataset, group)
        if compiled:
            stack.compile()
        *_, rows = train(stack, dataset, seeded(cfg, group))
        found += [row["train_loss"] for row in rows]
    return torch.tensor(found, dtype=torch.float64)


def interval_of_mean(differences, level):
    from scipy import stats

    n = len(differences)
    half = stats.t.ppf((1 + level) / 2, n - 1) * differences.std() / math.sqrt(n)
    return differences.mean() - half, differences.mean() + half


@pytest.mark.parametrize("compiled", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_final_metrics_of_stacks_agree_in_distribution_with_runs_one_by_one(compiled):
    """99 % interval of the paired differences over 16 seeds, after 10 epochs.

    Holds zero for the same config; a learning rate 10 % off must be seen, or the test is blind.
    Without momentum: then the loss still falls smoothly, and differences are the rate's own.
    """
    d, seeds = data(n=64), tuple(range(16))
    slow = {"train__epochs": 10, "train__batch_size": 16, "optimizer__momentum": 0.0}
    cfg = config(**slow, optimizer__lr=0.02)
    single = final_losses(cfg, d, seeds, together=False)
    low, high = interval_of_mean(final_losses(cfg, d, seeds, compiled) - single, 0.99)
    assert low <= 0 <= high or max(abs(low), abs(high)) < 1e-6
    planted = config(**slow, optimizer__lr=0.022)
    low, high = interval_of_mean(final_losses(planted, d, seeds, compiled) - single, 0.99)
    print(low, high)
    assert high < 0, "a higher learning rate is further down after the same time"
