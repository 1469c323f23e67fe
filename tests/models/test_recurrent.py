"""Recurrent networks against torch's own, against themselves in a stack, and against padding."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from bnstudy import data
from bnstudy.config import IGNORED, Config
from bnstudy.data import Dataset
from bnstudy.engine.tasks import CLASSIFICATION
from bnstudy.engine.train import train
from bnstudy.engine.widen import Widened
from bnstudy.errors import UserError
from bnstudy.norms import StepBatchNorm
from bnstudy.work import build as run
from bnstudy.work.build import anatomy, build, check

CPU = torch.device("cpu")
# float64 rounding (1e-16) through some thousand operations; 1 / std of few examples amplifies it
EXACT = {"rtol": 1e-9, "atol": 1e-10}
NORMS = {
    "none": {"name": "none"},
    "batch": {"name": "batch", "gamma_init": 0.3},
    "sequence": {"name": "batch", "scope": "sequence"},
    "layer": {"name": "layer"},
    "group": {"name": "group", "num_groups": 2},
}


def config(norm="none", cell="lstm", **model) -> Config:
    return Config.model_validate(
        {
            "model": {"name": "recurrent", "cell": cell, "hidden": (6,), **model},
            "norm": NORMS[norm] if isinstance(norm, str) else norm,
            "optimizer": {"lr_rule": "none", "schedule": "constant", "lr": 0.1, "momentum": 0},
            "train": {"batch_size": 8, "steps": 3},
        }
    )


def network(cfg, shape=(4, 7), classes=5):
    return build(cfg, shape, classes).double()


def sequences(n, channels, steps, lengths=None, seed=0):
    """(x, mask) as networks take them, labels at every valid step."""
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(n, channels, steps, generator=g, dtype=torch.float64)
    y = torch.randint(0, 5, (n, steps), generator=g)
    valid = torch.arange(steps) < torch.as_tensor(lengths or [steps] * n)[:, None]
    x = torch.cat([x * valid[:, None], valid[:, None].double()], 1)
    return x, y.masked_fill(~valid, IGNORED)


def mean_loss(net, x, y):
    return CLASSIFICATION.score(net(x)[:, None], y[:, None])[0].sum()


# --- the cells -----------------------------------------------------------------------------------


@pytest.mark.parametrize("hidden", [(6,), (6, 4)])
@pytest.mark.parametrize(("cell", "theirs"), [("tanh", nn.RNN), ("lstm", nn.LSTM), ("gru", nn.GRU)])
def test_without_a_norm_they_are_torchs_over_three_steps(cell, theirs, hidden):
    ours = network(config(cell=cell, hidden=hidden))
    layers, widths = [], [3, *hidden]
    for layer, inputs, units in zip(ours.layers, widths[:-1], hidden, strict=True):
        other = theirs(inputs, units, batch_first=True).double()
        for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
            nn.init.normal_(getattr(layer, name), std=0.5)  # biases that tell the gates apart
            getattr(other, f"{name}_l0").data.copy_(getattr(layer, name))
        layers.append(other)
    readout = nn.Linear(hidden[-1], 5).double()
    readout.load_state_dict({"weight": ours.weight, "bias": ours.bias})
    parameters = [p for part in (*layers, readout) for p in part.parameters()]
    optimizers = [torch.optim.SGD(p, 0.5, 0.9) for p in (ours.parameters(), parameters)]
    for step in range(3):
        x, y = sequences(8, 3, 7, seed=step)
        h = x[:, :-1].transpose(1, 2)
        for other in layers:
            h = other(h)[0]
        wanted = readout(h)
        found = ours(x)
        torch.testing.assert_close(found, wanted, **EXACT)
        for logits, optimizer in zip((found, wanted), optimizers, strict=True):
            optimizer.zero_grad()
            F.cross_entropy(logits.flatten(0, 1), y.flatten()).backward()
            optimizer.step()
    for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
        for layer, other in zip(ours.layers, layers, strict=True):
            torch.testing.assert_close(getattr(layer, name), getattr(other, f"{name}_l0"), **EXACT)


@pytest.mark.parametrize("norm", NORMS)
def test_tokens_are_one_hot_channels(norm):
    net = network(config(norm))
    tokens = torch.randint(0, 3, (8, 1, 7))
    tokens[0, 0, 5:] = -1
    valid = tokens >= 0
    one_hot = F.one_hot(tokens[:, 0].clamp(min=0), 3).double().transpose(1, 2) * valid
    torch.testing.assert_close(net(tokens), net(torch.cat([one_hot, valid.double()], 1)), **EXACT)


def test_batch_norm_per_step_is_torchs_batch_norm_at_each_step():
    net = network(config("batch", "tanh"))
    layer = net.layers[0]
    x, _ = sequences(8, 3, 7)
    h = torch.zeros(8, 6, dtype=torch.float64)
    for t in range(7):
        terms = []
        for value, weight, gamma in (
            (x[:, :-1, t], layer.weight_ih, layer.norm_ih.weight),
            (h, layer.weight_hh, layer.norm_hh.weight),
        ):
            terms.append(F.batch_norm(value @ weight.T, None, None, gamma, None, True))
        h = torch.tanh(terms[0] + terms[1] + layer.bias_ih + layer.bias_hh)
    torch.testing.assert_close(net(x)[:, -1], h @ net.weight.T + net.bias, **EXACT)


def test_the_cell_itself_is_not_normalized():
    """Cooijmans et al. 2017, section 3: only what leaves it."""
    net = network(config("batch"))
    with torch.no_grad():
        net.layers[0].norm_c.weight.fill_(0)
        net.layers[0].norm_c.bias.fill_(0)
    x, _ = sequences(8, 3, 7)
    torch.testing.assert_close(net(x), net.bias.expand(8, 7, 5), **EXACT)  # h = 0 whatever c is


# --- stacks --------------------------------------------------------------------------------------


@pytest.mark.parametrize("ragged", [False, True])
@pytest.mark.parametrize("cell", ["tanh", "lstm", "gru"])
@pytest.mark.parametrize("norm", NORMS)
def test_a_stack_is_its_networks_apart(norm, cell, ragged):
    seeds = (3, 4, 5)
    cfg = config(norm, cell)
    alone = [network(cfg.model_copy(update={"seed": s})) for s in seeds]
    stack = Widened([network(cfg.model_copy(update={"seed": s})) for s in seeds], CPU)
    lengths = [[7, 6, 5, 7, 3, 1, 2, 7], [1] * 7 + [4], [7] * 8] if ragged else [None] * 3
    batch = [sequences(8, 3, 7, own, seed=s) for own, s in zip(lengths, seeds, strict=True)]
    x, y = (torch.stack(part, 1) for part in zip(*batch, strict=True))
    with stack.training(True):
        loss, _ = stack.gradient(x, y)
    for i, net in enumerate(alone):
        own = mean_loss(net, *batch[i])
        own.backward()
        torch.testing.assert_close(loss[i], own.detach(), **EXACT)
        blocks = stack.blocks(stack.grad)
        for name, p in net.named_parameters():
            torch.testing.assert_close(blocks[name][i], p.grad, **EXACT, msg=name)
        for name, b in net.named_buffers():
            torch.testing.assert_close(stack.buffers_of(i)[name], b, **EXACT, msg=name)
        with stack.training(False):
            net.eval()
            torch.testing.assert_close(stack.predict(x)[:, i], net(batch[i][0]), **EXACT)


def test_a_networks_training_does_not_depend_on_its_stack():
    text = data.load(Config.model_validate({"data": {"name": "parity", "length": 9,
                                                     "train_size": 64}}).data)  # fmt: skip
    cfg = config("batch", initial_noise=0.1)

    def after(seeds):
        configs = [cfg.model_copy(update={"seed": s}) for s in seeds]
        nets = [run.build(c, text.shape, text.num_classes).double() for c in configs]
        stack = Widened(nets, CPU)
        rows = list(train(stack, _double(text), configs))[-1]
        return stack.state(0), rows[0]

    one, row = after((0,))
    three, same = after((0, 1, 2))
    for name, value in one.items():
        torch.testing.assert_close(three[name], value, **EXACT)
    assert row["test_loss"] == pytest.approx(same["test_loss"])


def _double(d: Dataset) -> Dataset:
    return d.with_parts(lambda _, x, y: (x.double() if x.is_floating_point() else x, y))


# --- padding -------------------------------------------------------------------------------------


@pytest.mark.parametrize("cell", ["tanh", "lstm", "gru"])
@pytest.mark.parametrize("norm", NORMS)
def test_how_much_padding_there_is_changes_nothing(norm, cell):
    """Loss, gradient and statistics of a batch; what stands in the padding does not matter."""
    lengths = [5, 4, 5, 3, 2, 1, 2, 5]
    found = []
    for steps, junk in ((5, 0.0), (7, 0.0), (7, 1e6)):
        net = network(config(norm, cell))
        x, y = sequences(8, 3, 5, lengths)
        x = F.pad(x, (0, steps - 5))
        y = F.pad(y, (0, steps - 5), value=IGNORED)
        x[:, :-1] += junk * (1 - x[:, -1:])
        loss = mean_loss(net, x, y)
        loss.backward()
        buffers = {n: b[:5] if b.dim() > 1 else b for n, b in net.named_buffers()
                   if "reused" not in n}  # fmt: skip
        found.append((loss, {n: p.grad for n, p in net.named_parameters()}, buffers))
    for other in found[1:]:
        torch.testing.assert_close(other[0], found[0][0], **EXACT)
        for part in (1, 2):
            for name, value in found[0][part].items():
                torch.testing.assert_close(other[part][name], value, **EXACT, msg=name)


@pytest.mark.parametrize("norm", NORMS)
def test_with_whom_a_sequence_is_batched_changes_nothing_in_evaluation(norm):
    """Nor in training, without batch norm: there the batch's statistics are meant to."""
    net = network(config(norm))
    mean_loss(net, *sequences(8, 3, 7))  # some population statistics
    net.eval()
    x, _ = sequences(2, 3, 7, [4, 4])
    long, _ = sequences(1, 3, 7, [7], seed=1)
    alone = net(x[:, :, :4])
    together = net(torch.cat([x, long]))[:2, :4]
    torch.testing.assert_close(together, alone, **EXACT)
    if norm in ("none", "layer", "group"):
        net.train()
        torch.testing.assert_close(net(torch.cat([x, long]))[:2, :4], alone, **EXACT)


def test_states_stay_once_a_sequence_has_ended():
    net = network(config("layer"))
    net.keep_states = True
    net(sequences(2, 3, 7, [3, 7])[0])
    states = torch.stack(net.states)[:, 0, 0]
    assert torch.equal(states[2].expand(5, -1), states[2:])


# --- what cannot work ----------------------------------------------------------------------------


def wrong(**overrides):
    cfg = config("batch")
    parts = {"norm": cfg.norm.model_copy(update=overrides.pop("norm", {})),
             "model": cfg.model.model_copy(update=overrides.pop("model", {})),
             "train": cfg.train.model_copy(update=overrides.pop("train", {}))}  # fmt: skip
    ds = data.load(Config.model_validate({"data": {"name": "parity", "length": 9,
                                                   "train_size": 16}}).data)  # fmt: skip
    cfg = cfg.model_copy(update=parts)
    check(cfg, ds)
    anatomy(cfg, ds)


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        ({"norm": {"time_steps": 8}}, r"norm\.time_steps=8 .*9 steps"),
        ({"norm": {"name": "instance"}}, "norm=instance in a recurrent network"),
        ({"model": {"name": "resnet"}}, "model=resnet reads images"),
        ({"train": {"batch_size": 1}}, "1 example at each time step.*min_count=2"),
        ({"train": {"processes": 2}}, "train.processes=2"),
        ({"train": {"classes_per_batch": 2}}, "not sequences"),
    ],
)
def test_what_cannot_train_is_refused_before_it_starts(overrides, said):
    with pytest.raises(UserError, match=said):
        wrong(**overrides)


def test_a_sequence_of_length_0_is_refused():
    net = network(config())
    with pytest.raises(ValueError, match="length 0"):
        net(sequences(2, 3, 7, [0, 7])[0])


def test_images_are_no_sequences():
    with pytest.raises(UserError, match=r"data\.sequence=rows"):
        build(config(), (1, 8, 8), 10)


def test_the_longest_training_sequence_sets_T_max():
    net = network(config("batch"), (4, 7))
    assert [m.time_steps for m in net.modules() if isinstance(m, StepBatchNorm)] == [7, 7, 7]
    net.train()
    with pytest.raises(ValueError, match=r"time_steps=7.*longest"):
        net(sequences(8, 3, 8)[0])
    net.eval()
    assert net(sequences(8, 3, 70)[0]).isfinite().all()


@pytest.mark.parametrize("affine", ["none", "beta", "gamma", "both"])
def test_layer_norm_in_a_stack_with_any_affine_map(affine):
    cfg = config({"name": "layer", "affine": affine})
    alone = [network(cfg.model_copy(update={"seed": s})) for s in (0, 1)]
    stack = Widened([network(cfg.model_copy(update={"seed": s})) for s in (0, 1)], CPU)
    x, _ = sequences(8, 3, 7)
    found = stack.predict(torch.stack([x, x], 1))
    for i, net in enumerate(alone):
        torch.testing.assert_close(found[:, i], net(x), **EXACT)


def test_each_layer_draws_noise_of_its_own():
    ds = data.load(Config.model_validate({"data": {"name": "parity", "length": 5,
                                                   "train_size": 16}}).data)  # fmt: skip
    cfg = config("layer", hidden=(6, 6), initial_noise=0.1)
    stack = Widened([run.build(cfg, ds.shape, 2)], CPU)
    list(train(stack, ds, [cfg]))
    first, second = (layer.streams[0].get_state() for layer in stack.net.layers)
    assert not torch.equal(first, second)


def test_online_errors_of_sequences_count_what_has_a_label():
    ds = data.load(Config.model_validate({"data": {"name": "adding", "length": 6,
                                                   "train_size": 16}}).data)  # fmt: skip
    cfg = config("layer")
    cfg = cfg.model_copy(update={"evaluate": cfg.evaluate.model_copy(update={"online": True})})
    stack = Widened([run.build(cfg, ds.shape, 10)], CPU)
    (row,) = list(train(stack, ds, [cfg]))[-1]
    assert row["online_error"] * 24 == pytest.approx(round(row["online_error"] * 24), abs=1e-4)


def test_a_group_norm_that_does_not_fit_names_its_layer():
    with pytest.raises(UserError, match=r"layers\.0\.norm_ih.*num_groups=5"):
        wrong(norm={"name": "group", "num_groups": 5})


def test_too_few_test_sequences_are_told_before_training():
    cfg = config("batch").model_copy(update={"norm": config("batch").norm.model_copy(
        update={"min_count": 8})})  # fmt: skip
    ds = data.load(Config.model_validate({"data": {"name": "parity", "length": 9,
                                                   "train_size": 16}}).data)  # fmt: skip
    few = ds.with_parts(lambda part, x, y: (x[:7], y[:7]) if part == "test" else (x, y))
    with pytest.raises(UserError, match=r"test part .* 7 sequences"):
        check(cfg, few)
