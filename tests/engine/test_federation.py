"""Clients train alone and meet after each round; averages are those of a plain loop."""

import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from toy_training import config, data, stack_of

from bnstudy.config import DataConfig
from bnstudy.data.clients import clients, dealt
from bnstudy.engine.federation import each_client, together
from bnstudy.engine.mapped import Mapped
from bnstudy.engine.train import Order, train
from bnstudy.engine.widen import Widened
from bnstudy.errors import UserError
from bnstudy.sweep.protocol import Execution
from bnstudy.work import build as run
from bnstudy.work.trainer import Trainer

SEEDS = (3, 4)  # two federations
CLIENTS = 3


def federation(shared="all", **own):
    own = {"clients": CLIENTS, "local_steps": 2, "shared": shared, "contrast": 0.7, **own}
    return config(federation=own, train__steps=5, optimizer__momentum=0.0)


def seen(cfg, seeds=SEEDS):
    """The toy data as the clients of each seed see them."""
    plain = replace(data(n=30), info={"mean": [0.2], "std": [0.5]})
    return clients(plain, seeds, cfg.federation)


def federated(cfg, kind=Widened, dataset=None):
    dataset = dataset or seen(cfg)
    each = each_client([cfg.model_copy(update={"seed": s}) for s in SEEDS])
    stack = stack_of(cfg, dataset, [c.seed for c in each], kind)
    return stack, list(train(stack, dataset, each))


def by_hand(cfg, dataset):
    """Separate networks, plain gradient steps, and means over clients after steps 2, 4 and 5."""
    each = each_client([cfg.model_copy(update={"seed": s}) for s in SEEDS])
    nets = [run.build(c, tuple(dataset.shape), dataset.num_classes) for c in each]
    order = Order(dataset, each)
    kept = {n for n, m in nets[0].named_modules() if getattr(m, "is_norm", False)}
    for step in range(1, 6):
        x, y = dataset.take("train", next(order))
        for i, net in enumerate(nets):
            net.zero_grad()
            F.cross_entropy(net(x[:, i]), y[:, i]).backward()
            with torch.no_grad():
                for parameter in net.parameters():
                    parameter.sub_(cfg.optimizer.lr * parameter.grad)
        if step not in (2, 4, 5) or cfg.federation.shared == "none":
            continue
        for first in (0, CLIENTS):
            states = [net.state_dict() for net in nets[first : first + CLIENTS]]
            for name, value in states[0].items():
                own = cfg.federation.shared == "all_but_norms" and name.rpartition(".")[0] in kept
                if value.is_floating_point() and not own:
                    mean = sum(s[name] for s in states) / CLIENTS
                    for state in states:
                        state[name].copy_(mean)
    return nets


@pytest.mark.parametrize("kind", [Widened, Mapped])
@pytest.mark.parametrize("shared", ["all", "all_but_norms", "none"])
def test_rounds_are_those_of_a_plain_loop(shared, kind):
    cfg = federation(shared)
    stack, _ = federated(cfg, kind)
    for i, net in enumerate(by_hand(cfg, seen(cfg))):
        found = stack.state(i)
        for name, value in net.state_dict().items():
            if value.is_floating_point():
                # float32 rounding through five steps, as THREE_STEPS in toy_training
                torch.testing.assert_close(found[name], value, rtol=1e-4, atol=1e-4, msg=name)


@pytest.mark.parametrize("shared", ["all", "all_but_norms", "none"])
def test_clients_end_with_what_they_share(shared):
    stack, _ = federated(federation(shared))
    norms = {n for n, m in stack.net.named_modules() if getattr(m, "is_norm", False)}
    first, second = stack.state(0), stack.state(1)
    equal = {name for name in first if torch.equal(first[name], second[name])}
    counters = {name for name in first if name.endswith("num_batches_tracked")}
    own = {name for name in first if name.rpartition(".")[0] in norms}
    wanted = {"all": first.keys(), "all_but_norms": first.keys() - own, "none": set()}[shared]
    assert equal == wanted | counters
    # federations share nothing with each other
    assert not torch.equal(first["1.weight"], stack.state(CLIENTS)["1.weight"])


def test_one_step_and_one_view_are_a_step_on_all_examples():
    """Without norms: the mean of three gradients is the gradient of the mean loss."""
    one = federation(local_steps=1, contrast=0.0)
    one = one.model_copy(update={"norm": one.norm.model_copy(update={"name": "none"}),
                                 "train": one.train.model_copy(update={"steps": 1})})  # fmt: skip
    dataset = seen(one)
    stack, _ = federated(one, dataset=dataset)
    net = run.build(one.model_copy(update={"seed": SEEDS[0]}), tuple(dataset.shape), 3)
    each = each_client([one.model_copy(update={"seed": s}) for s in SEEDS])
    x, y = dataset.take("train", next(Order(dataset, each)))
    F.cross_entropy(net(x[:, :CLIENTS].flatten(0, 1)), y[:, :CLIENTS].flatten()).backward()
    for name, parameter in net.named_parameters():
        expected = parameter.detach() - one.optimizer.lr * parameter.grad
        torch.testing.assert_close(stack.state(0)[name], expected, rtol=1e-5, atol=1e-6)


def test_clients_have_examples_of_their_own_and_see_them_in_their_own_way():
    cfg = federation(contrast=0.7, noise=0.4)
    plain = replace(data(n=30), info={"mean": [0.2], "std": [0.5]})
    found, one = seen(cfg), replace(plain, rows={})
    parts = dealt(torch.arange(30), CLIENTS, SEEDS[0])
    assert sorted(torch.cat(parts).tolist()) == list(range(30))
    assert [len(part) for part in dealt(torch.arange(31), CLIENTS, 0)] == [10] * 3
    assert found.size("train") == 10
    assert found.size("test") == found.size("val") == 30
    index = torch.arange(10)[:, None].expand(-1, 6)
    x, y = found.take("train", index)
    for k, own in enumerate(parts):
        assert torch.equal(y[:, k], one.train_y[own])
        raw, expected = x[:, k] * 0.5 + 0.2, one.train_x[own] * 0.5 + 0.2
        noise = raw - math.exp(0.7 * (k - 1)) * expected
        # s.d. 0, 0.2, 0.4 from 640 values each: 3 % of it
        assert noise.std().item() == pytest.approx(0.2 * k, rel=0.1, abs=1e-5)
    # what a client sees is the same for all seeds, which examples it has is not
    tests, _ = found.take("test", index)
    assert torch.equal(tests[:, :CLIENTS], tests[:, CLIENTS:])
    assert not torch.equal(y[:, 0], y[:, CLIENTS])
    # and images can be changed in units of the grey range, whosever they are
    again = found.with_raw("test", lambda raw: raw + 1.0)
    torch.testing.assert_close(again.test_x, found.test_x + 2.0)


def test_a_row_is_the_mean_over_clients():
    row = {"seed": 1, "step": 4, "epoch": 1.0, "examples": 8, "lr": 0.1}
    rows = [
        {**row, "diverged_at": d, "test_error": e} for d, e in ((None, 0.1), (3, 0.9), (2, 0.8))
    ]
    (found,) = together(rows, 3)
    assert found == {
        **row, "diverged_at": 2, "test_error": pytest.approx(0.6),
        "client_error/01": 0.1, "client_error/02": 0.9, "client_error/03": 0.8,
    }  # fmt: skip
    assert together(rows, 1) == rows


def test_a_run_is_a_federation(tmp_path):
    """Two seeds, two learning rates and three clients train as one stack of twelve networks."""
    cfg = federation("all").model_copy(update={"data": DataConfig(train_size=40)})
    runs = [
        cfg.model_copy(update={"seed": s, "optimizer": cfg.optimizer.model_copy(update={"lr": lr})})
        for lr in (0.1, 0.02)
        for s in SEEDS
    ]
    execution = Execution(results_dir=str(tmp_path), compile="never", save_weights=True)
    trainer = Trainer(execution, tmp_path, torch.device("cpu"))
    trained = trainer.train(runs)
    assert [how["networks"] for how in trained.how] == [4] * 4
    assert trained.anatomy.train_size == 40 // CLIENTS
    for run_config, history in zip(runs, trained.history, strict=True):
        row = history[-1]
        assert (row["seed"], row["lr"]) == (run_config.seed, run_config.optimizer.lr)
        errors = [row[f"client_error/{k:02d}"] for k in (1, 2, 3)]
        assert row["test_error"] == pytest.approx(sum(errors) / 3)
        assert len(set(errors)) > 1  # one network, other images
    alone = trainer.train(runs[1:2])
    # another stack plan: equal up to rounding, over five steps
    assert alone.history[0][-1]["test_loss"] == pytest.approx(
        trained.history[1][-1]["test_loss"], rel=1e-3
    )
    torch.testing.assert_close(alone.weights[0], trained.weights[1], rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    ("own", "said"),
    [
        ({"train__batch_size": 20}, "10 examples of digits for each of 3 clients"),
        ({"norm__name": "online"}, "does not support norm=online"),
        ({"data__noise_every_step": True}, "does not support data.noise_every_step"),
        ({"train__processes": 2}, "does not support train.processes"),
    ],
)
def test_what_clients_cannot_do_is_refused(own, said):
    cfg = config(federation={"clients": 3}, **own)
    with pytest.raises(UserError, match=said):
        run.check(cfg, data(n=30))


def test_one_client_shares_nothing():
    with pytest.raises(ValueError, match=r"federation\.clients of 2 or more"):
        config(federation={"shared": "none"})
    assert config(federation={"clients": 1}).address == config().address
