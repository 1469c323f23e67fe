"""Dropout: what it does to values, and that a network's masks are its own."""

import pytest
import torch

from bnstudy import data
from bnstudy.config import Config
from bnstudy.data.samplers import generator
from bnstudy.engine.train import train
from bnstudy.engine.widen import Widened
from bnstudy.errors import UserError
from bnstudy.models.dropout import Dropout
from bnstudy.work import build as run
from bnstudy.work.trainer import compiled, side_by_side

CPU = torch.device("cpu")
PARTS = {
    "mlp": {"name": "mlp", "hidden": [6, 5], "dropout": 0.3},
    "lenet": {"name": "lenet", "dropout": 0.3},
    "resnet": {"name": "resnet", "width": 2, "dropout": 0.3},
}


def config(part: str = "mlp", **more) -> Config:
    plain = {"data": {"train_size": 40}, "model": PARTS[part], "evaluate": {"large_batch": 60},
             "train": {"batch_size": 8, "steps": 3}}  # fmt: skip
    return Config.model_validate({**plain, **more})


def test_values_are_zero_or_divided_by_what_is_kept():
    """The share that is kept is binomial: within five standard deviations of 1 - p."""
    layer, x = Dropout(0.3), torch.full((200, 50), 2.0)
    y = layer(x)
    assert y.unique().tolist() == pytest.approx([0, 2 / 0.7])
    deviation = (0.3 * 0.7 / x.numel()) ** 0.5
    assert (y > 0).float().mean().item() == pytest.approx(0.7, abs=5 * deviation)
    assert torch.equal(layer.eval()(x), x)


def test_gradients_pass_where_values_do():
    x = torch.ones(30, 4, requires_grad=True)
    y = Dropout(0.5)(x)
    y.sum().backward()
    assert torch.equal(x.grad, y.detach())


def test_side_by_side_each_network_has_the_masks_it_has_alone():
    wide = Dropout(0.5).widened(3)
    wide.streams = [generator(seed, "dropout") for seed in (4, 5, 6)]
    x = torch.ones(7, 3 * 2, 5)
    drawn = wide(x)
    for i, seed in enumerate((4, 5, 6)):
        one = Dropout(0.5)
        one.streams = [generator(seed, "dropout")]
        assert torch.equal(drawn[:, 2 * i : 2 * i + 2], one(x[:, :2]))


@pytest.mark.parametrize("model", PARTS)
def test_a_networks_training_does_not_depend_on_its_stack(model):
    digits = data.load(config().data)
    digits = data.Dataset(**{
        k: v.double() if torch.is_tensor(v) and v.is_floating_point() else v
        for k, v in vars(digits).items()
    })  # fmt: skip

    def after(seeds):
        configs = [config(model, seed=s) for s in seeds]
        nets = [run.build(c, digits.shape, digits.num_classes).double() for c in configs]
        stack = Widened(nets, CPU)
        list(train(stack, digits, configs))
        return stack.state(0)

    alone, together, other = after([3]), after([3, 4]), after([4])
    for name, value in alone.items():
        torch.testing.assert_close(together[name], value, rtol=1e-9, atol=1e-11, msg=name)
    weight = next(name for name in alone if name.endswith("weight"))
    assert not torch.equal(alone[weight], other[weight])


def test_every_layer_of_a_network_draws_its_own_masks():
    digits, cfg = data.load(config().data), config()
    stack = Widened([run.build(cfg, digits.shape, digits.num_classes)], CPU)
    next(train(stack, digits, [cfg]))
    first, second = (m for m in stack.net.modules() if isinstance(m, Dropout))
    assert not torch.equal(*(torch.rand(9, generator=m.streams[0]) for m in (first, second)))


def test_without_dropout_a_network_is_as_it_was():
    plain = config(model={"name": "mlp", "hidden": [6, 5]})
    assert plain.address == config(model={**PARTS["mlp"], "dropout": 0.0}).address
    net = run.build(plain, (1, 8, 8), 10)
    assert not any(isinstance(m, Dropout) for m in net.modules())
    with_it = run.build(config(), (1, 8, 8), 10)
    for own, other in zip(net.parameters(), with_it.parameters(), strict=True):
        assert torch.equal(own, other)  # the same initial weights


def test_networks_with_dropout_stack_and_are_not_compiled():
    digits, cfgs = data.load(config().data), [config(), config(seed=1)]
    assert side_by_side(cfgs, digits) == ([[0, 1]], "")
    stack = Widened([run.build(cfgs[0], digits.shape, 10)], CPU)
    assert compiled(stack, cfgs[0], 10**6, "always").startswith("eager: dropout")


def test_norms_that_do_not_widen_train_one_network_at_a_time():
    cfgs = [config(norm={"name": "rms"}, seed=s) for s in (0, 1)]
    found, why = side_by_side(cfgs, data.load(cfgs[0].data))
    assert found == [[0], [1]]
    assert "random" in why


def test_processes_that_share_a_batch_are_refused():
    cfg = config(train={"batch_size": 8, "steps": 3, "processes": 2})
    with pytest.raises(UserError, match="processes that share a batch"):
        run.check(cfg, data.load(cfg.data))
