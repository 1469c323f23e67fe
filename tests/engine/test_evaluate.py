"""What an evaluation says."""

import math
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from toy_training import CPU, config, data, seeded, stack_of, trained

from bnstudy import data as data_of
from bnstudy import norms, probes
from bnstudy.config import Config
from bnstudy.data.samplers import batches, epoch_order, evaluation_order, generator
from bnstudy.engine.evaluate import View
from bnstudy.engine.stack import make_stack
from bnstudy.engine.train import diverged_at, train
from bnstudy.work import build as run


@pytest.mark.parametrize("model", ["mlp", "resnet"])
def test_batch_statistics_of_groups_are_those_of_separate_batches(model):
    """Scoring n examples in groups of b in one forward = n / b forwards of b."""
    cfg = config(model__name=model, model__width=2)
    d = data(n=30)
    stack, _ = trained(cfg, d, (0, 1))
    with stack.training(False), norms.evaluation_mode(stack.net, "batch", 4):
        together = View(stack, d, cfg, (0, 1), None).score("test", 4)
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
        found = View(stack, d, cfg, (0, 1), None).precise_statistics()
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


def test_divergence_is_data():
    cfg, d = config(optimizer__lr=1e30, norm__name="none", train__steps=6), data()
    _, history = trained(cfg, d, (0, 1))
    last = history[-1]
    assert last["diverged_at"] is not None
    assert last["test_error"] == pytest.approx(2 / 3)  # chance among three classes
    assert math.isnan(last["test_loss"])


def test_a_network_diverges_at_its_first_bad_loss_else_at_the_row_that_finds_it():
    losses = torch.tensor([[1.0, math.inf, 1.0], [1.0, 1.0, 1.0], [1.0, 1.0, 1.0]])
    assert diverged_at(losses, torch.tensor([False, True, False])) == [1, None, 3]
    assert diverged_at(losses[:, :0], torch.tensor([False, True, False])) == [0, None, 0]


def test_divergence_in_the_last_update_is_marked():
    """Its loss is finite, what it leads to is not."""
    cfg, d = config(optimizer__lr=1e30, norm__name="none", train__steps=1), data()
    _, history = trained(cfg, d, (0, 1))
    for row in history:
        assert row["diverged_at"] == 1
        assert row["test_error"] == pytest.approx(2 / 3)


def test_weights_that_are_not_finite_are_found_wherever_they_stand():
    stack = stack_of(config(), data(), (0, 1, 2))
    assert stack.finite().tolist() == [True, True, True]
    last = list(stack.blocks(stack.flat).values())[-1]
    last[1].view(-1)[-1] = math.inf
    assert stack.finite().tolist() == [True, False, True]


# --- what measuring leaves as it is ---------------------------------------------------------------

MLP = ["none", "batch", "ghost", "group", "layer", "rms", "online", "continual", "noisy"]
EXTRA = {"group": {"num_groups": 1}, "continual": {"num_groups": 1}, "ghost": {"group_size": 2}}
SEQUENCES = data_of.load(
    Config.model_validate({"data": {"name": "parity", "length": 6, "train_size": 24}}).data
)


def after_training(cfg, dataset, every, names):
    """Weights and buffers of one network, measured every so many steps."""
    cfg = cfg.model_copy(update={"evaluate": cfg.evaluate.model_copy(update={"steps": every})})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        stack = stack_of(cfg, dataset, (0,))
        measured = [probes.PROBES[name] for name in names]
        always = [SimpleNamespace(measure=p.measure, always=True) for p in measured]
        list(train(stack, dataset, [cfg], always))
    return stack.state(0)


@pytest.mark.parametrize(
    ("model", "norm"),
    [("mlp", norm) for norm in MLP]
    + [("recurrent", norm) for norm in ("none", "batch", "layer", "group")],
)
def test_however_often_it_is_measured_training_gives_the_same_bits(model, norm):
    recurrent = model == "recurrent"
    cfg = config(
        model__name=model,
        model__initial_noise=0.5 * recurrent,
        train__steps=5,
        norm={"name": norm, **EXTRA.get(norm, {})},
    )
    dataset = SEQUENCES if recurrent else data()
    names = (
        ["gradient_norm", "shared_statistics"]
        if recurrent
        else ["effective_m", "renorm", "statistics_gap"]
    )
    often, once = (after_training(cfg, dataset, every, names) for every in (1, 5))
    for name, value in once.items():
        assert torch.equal(often[name], value), name


class Drawing(torch.nn.Module):
    """Draws whenever it is called, from streams of its own and torch's."""

    def __init__(self):
        super().__init__()
        self.generator = torch.Generator().manual_seed(0)
        self.streams = [torch.Generator().manual_seed(1)]

    def forward(self, x):
        for stream in (self.generator, *self.streams, None):
            x = x + torch.randn(x.shape, generator=stream)
        return x


@pytest.mark.parametrize("online", [False, True])
def test_layers_that_draw_in_evaluation_train_on_as_if_it_had_not_been(online):
    d, found = data(), []
    for every in (1, 5):
        cfg = config(train__steps=5, evaluate__steps=every, evaluate__online=online and every == 1)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            net = torch.nn.Sequential(run.build(cfg, tuple(d.shape), d.num_classes), Drawing())
            stack = make_stack([net], CPU, known=False)
            list(train(stack, d, [cfg]))
        found.append(stack.flat.clone())
    assert torch.equal(*found)


# --- a network that is lost -----------------------------------------------------------------------


@pytest.mark.parametrize("norm", ["none", "batch", "ghost", "group", "layer", "rms", "continual"])
@pytest.mark.parametrize("model", ["mlp", "lenet", "resnet"])
def test_a_network_of_nans_leaves_the_others_of_its_stack_alone(model, norm):
    cfg = config(
        model__name=model, model__width=2, norm={"name": norm, **EXTRA.get(norm, {})},
        optimizer__weight_average=8.0, optimizer__clip_norm=1.0, optimizer__weight_decay=0.1,
        evaluate__online=True,
    )  # fmt: skip
    d = data()

    def others(lost):
        nets = [run.build(c, tuple(d.shape), d.num_classes) for c in seeded(cfg, (0, 1, 2))]
        stack = make_stack(nets, CPU, known=True)
        if lost:
            for block in stack.blocks(stack.flat).values():
                block[1] = math.nan
        *_, rows = train(stack, d, seeded(cfg, (0, 1, 2)))
        assert rows[1]["diverged_at"] == (0 if lost else None)
        return [(stack.state(i), rows[i]) for i in (0, 2)]

    for (state, row), (healthy, expected) in zip(others(True), others(False), strict=True):
        assert row == expected
        for name, value in healthy.items():
            assert torch.equal(state[name], value), name
