"""Optimisers against torch's own; schedules, decay and averages."""

import pytest
import torch
import torch.nn.functional as F
from toy_training import CPU, config, data, seeded, stack_of, trained

from bnstudy import norms
from bnstudy.data.samplers import batches, epoch_order, generator
from bnstudy.engine.optimizer import Optimizer
from bnstudy.engine.train import train
from bnstudy.engine.widen import Widened
from bnstudy.work import trainer as run


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
