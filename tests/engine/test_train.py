"""The loop by counting, and its promises on bits."""

from dataclasses import replace

import pytest
import torch
from toy_training import config, data, stack_of, trained

from bnstudy.config import Config
from bnstudy.data import load, load_many
from bnstudy.data.samplers import generator
from bnstudy.engine.train import Order
from bnstudy.work import build as run


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


def test_the_same_command_gives_the_same_bits():
    cfg, d = config(model__name="resnet", model__width=2), data()
    first, history = trained(cfg, d, (0, 1))
    second, again = trained(cfg, d, (0, 1))
    assert torch.equal(first.flat, second.flat)
    assert history == again


def test_freezing_stops_the_statistics_and_not_the_weights():
    cfg, d = config(norm__freeze_at=0.5, train__steps=4), data()
    half, _ = trained(config(train__steps=2), d, (0,))
    full, _ = trained(cfg, d, (0,))
    for name, buffer in half.buffers.items():
        assert torch.equal(buffer, full.buffers[name]), name
    assert not torch.equal(half.flat, full.flat)


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


def test_a_seed_whose_classes_fill_fewer_batches_draws_its_next_epoch_earlier():
    """Of unbalanced classes; beside other seeds it sees the batches that it sees alone."""
    cfg = Config.model_validate({"train": {"batch_size": 10, "classes_per_batch": 10}})

    def drawn(*seeds):
        configs = [cfg.model_copy(update={"seed": seed}) for seed in seeds]
        order = Order(load_many([(cfg.data, seed) for seed in seeds]), configs)
        return torch.stack([next(order) for _ in range(300)])  # two epochs and a half

    together = drawn(0, 1)
    labels = load(cfg.data, seed=1).train_y
    scarcest = [int(load(cfg.data, seed=s).train_y.bincount().min()) for s in (0, 1)]
    assert scarcest[0] != scarcest[1], "the epochs are of different lengths"
    for i in range(2):
        assert torch.equal(together[..., i], drawn(i)[..., 0])
    rows = labels[together[: scarcest[1], :, 1]]
    assert all(len(batch.unique()) == 10 for batch in rows)
