"""Probes of recurrent networks against what they claim to measure, computed another way."""

import math

import pytest
import torch
import torch.nn.functional as F

from bnstudy import data, probes
from bnstudy.config import Config
from bnstudy.engine.evaluate import View
from bnstudy.engine.optimizer import Optimizer
from bnstudy.engine.train import train
from bnstudy.engine.widen import Widened
from bnstudy.errors import UserError
from bnstudy.norms.base import attributes
from bnstudy.probes import recurrent
from bnstudy.work import build as run

CPU = torch.device("cpu")


def config(norm="batch", cell="lstm", steps=3, **cfg):
    return Config.model_validate(
        {
            "data": {"name": "text", "length": 8, "train_size": 64, **cfg},
            "model": {"name": "recurrent", "cell": cell, "hidden": (6,)},
            "norm": {"name": norm} if isinstance(norm, str) else norm,
            "optimizer": {"name": "adam", "lr": 0.01, "lr_rule": "none", "clip_norm": 1.0},
            "train": {"batch_size": 16, "steps": steps},
        }
    )


def viewed(cfg, seeds=(0, 1)):
    ds = data.load(cfg.data)
    configs = [cfg.model_copy(update={"seed": s}) for s in seeds]
    stack = Widened([run.build(c, ds.shape, ds.num_classes) for c in configs], CPU)
    rows = list(train(stack, ds, configs))
    update = Optimizer([c.optimizer for c in configs], stack, 16, 1)
    return View(stack, ds, cfg, seeds, update, last=True), rows[-1]


def test_lengths_are_bits_of_the_same_text_in_other_windows():
    view, rows = viewed(config())
    before = view.data
    found = recurrent.lengths(view)
    assert view.data is before
    for i, row in enumerate(rows):
        assert found["length/0008"][i] == pytest.approx(row["test_loss"] / math.log(2), rel=1e-5)
    stack, ds = view.stack, view.data
    x, y = ds.test_x.flatten(), ds.test_y.flatten()
    n = len(x) // 80
    with stack.training(False):
        logits = stack.predict(x[: n * 80].view(n, 1, 1, 80).expand(-1, 2, -1, -1))
    for i in range(2):
        expected = F.cross_entropy(logits[:, i].flatten(0, 1), y[: n * 80]) / math.log(2)
        assert found["length/0080"][i] == pytest.approx(float(expected), rel=1e-4)
    assert (found["length_truncated/0080"] != found["length/0080"]).all()
    assert (found["length_shared/0080"] != found["length/0080"]).all()
    assert (found["length_batch/0080"] != found["length/0080"]).all()
    assert torch.equal(found["length_truncated/0002"], found["length/0002"])  # two steps are kept


def test_lengths_are_for_texts_in_full_windows():
    view, _ = viewed(config(min_length=4))
    assert recurrent.lengths(view) == {}
    view, _ = viewed(config("layer"))
    assert {name.partition("/")[0] for name in recurrent.lengths(view)} == {"length"}


def test_shared_statistics_are_those_of_the_shared_scope():
    view, _ = viewed(config())
    loss = recurrent.shared_statistics(view)["test_loss_shared"]
    norms = list(recurrent.step_norms(view).values())
    with view.stack.training(False), attributes(norms, scope="shared"):
        assert torch.equal(view.score("test")[0], loss)
    assert {norm.scope for norm in norms} == {"step"}


def test_step_statistics_say_how_far_and_of_how_many():
    view, _ = viewed(config(min_length=2))
    found = recurrent.step_statistics(view)
    norm = view.stack.net.layers[0].norm_hh
    assert torch.equal(found["behind/0003"], norm.examples[2])
    assert (found["behind/0008"] < found["behind/0001"]).all()
    assert not found["drift/0008"].any()
    mean, std = norm.running_mean.view(8, 2, -1), norm.running_var.view(8, 2, -1)[-1].sqrt()
    wanted = (((mean[2] - mean[7]) / std) ** 2).mean(-1).sqrt()
    torch.testing.assert_close(found["drift/0003"], wanted)


def test_gradient_norms_are_those_of_one_example_after_the_other():
    view, _ = viewed(config("none", "tanh", steps=0, name="parity", length=12))
    found = recurrent.gradient_norm(view)
    x, y = view.data.train_x[:16], view.data.train_y[:16]
    for i in range(2):
        weights = view.stack.parameters(i)
        h, states = torch.zeros(16, 6), []
        for t in range(12):
            ih, hh = (weights[f"layers.0.weight_{k}"] for k in ("ih", "hh"))
            bias = weights["layers.0.bias_ih"] + weights["layers.0.bias_hh"]
            h = torch.tanh(x[:, :-1, t] @ ih.T + h @ hh.T + bias)
            h.requires_grad_() if h.is_leaf else h.retain_grad()
            states.append(h)
        logits = torch.stack(states, 1) @ weights["weight"].T + weights["bias"]
        loss = F.cross_entropy(logits.flatten(0, 1), y.flatten())
        logs = torch.stack([g.norm().log10() for g in torch.autograd.grad(loss, states)])
        for t in range(12):
            assert found[f"gradient/{t + 1:04d}"][i] == pytest.approx(float(logs[t]), abs=1e-4)
        t = torch.arange(12.0)
        slope = torch.linalg.lstsq(torch.stack([t, torch.ones(12)], 1), logs[:, None]).solution[0]
        assert found["gradient_slope"][i] == pytest.approx(100 * float(slope), rel=1e-3)
    assert view.stack.net.states == []


def test_probes_leave_the_stack_as_it_was():
    view, _ = viewed(config())
    before = [view.stack.flat.clone(), *(b.clone() for b in view.stack.buffers.values())]
    for name in ("lengths", "shared_statistics", "step_statistics", "gradient_norm"):
        probes.PROBES[name].measure(view)
    after = [view.stack.flat, *view.stack.buffers.values()]
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


def test_statistics_made_by_too_few_are_counted():
    view, rows = viewed(config(min_length=1, length=40))  # at step 40 0.4 examples are left
    layer = view.stack.net.layers[0]
    per_norm = [norm.reused for norm in (layer.norm_ih, layer.norm_hh, layer.norm_c)]
    assert all(torch.equal(own, per_norm[0]) for own in per_norm)
    assert rows[0]["reused_statistics"] == float(per_norm[0][0]) > 0
    _, rows = viewed(config())
    assert rows[0]["reused_statistics"] == 0


@pytest.mark.parametrize("limit", [0.05, 1e6])
def test_each_networks_gradient_is_clipped_by_itself(limit):
    view, _ = viewed(config("none", steps=0))
    stack, update = view.stack, view.update
    x, y = view.data.take("train", torch.arange(16)[:, None].expand(-1, 2))
    stack.gradient(x, y)
    stack.blocks(stack.grad)["weight"][1] *= 5
    wanted = []
    for i in range(2):
        own = [b[i].clone() for b in stack.blocks(stack.grad).values()]
        leaves = [torch.zeros_like(g, requires_grad=True) for g in own]
        for leaf, g in zip(leaves, own, strict=True):
            leaf.grad = g
        torch.nn.utils.clip_grad_norm_(leaves, limit)
        wanted.append([leaf.grad for leaf in leaves])
    update._clip(stack.grad, limit)
    for i in range(2):
        for block, g in zip(stack.blocks(stack.grad).values(), wanted[i], strict=True):
            torch.testing.assert_close(block[i], g, rtol=1e-4, atol=1e-8)


@pytest.mark.parametrize(
    ("probe", "cfg", "said"),
    [
        ("corruptions", {}, "on images: data=text is sequences"),
        ("effective_m", {}, "on images"),
        ("lengths", {"length": 20000}, "up to 200000 characters"),
    ],
)
def test_probes_that_do_not_fit_the_data_are_refused(probe, cfg, said):
    with_probe = config(**cfg)
    evaluate = with_probe.evaluate.model_copy(update={"probes": (probe,)})
    few = with_probe.data.model_copy(update={"train_size": None})
    asked = with_probe.model_copy(update={"evaluate": evaluate, "data": few})
    with pytest.raises(UserError, match=said):
        run.check(asked, data.load(asked.data))


def test_probes_of_sequences_are_not_for_images():
    cfg = Config.model_validate({"evaluate": {"probes": ("lengths",)}})
    with pytest.raises(UserError, match="on sequences: data=digits is images"):
        run.check(cfg, data.load(cfg.data))


@pytest.mark.parametrize("given", [{}, {"name": "parity", "min_length": 2}])
@pytest.mark.parametrize(
    ("cell", "norm"),
    [("tanh", "none"), ("lstm", "batch"), ("gru", "layer"), ("lstm", "layer"), ("gru", "group")],
)
def test_a_network_of_nans_changes_nothing_that_is_said_of_the_others(cell, norm, given):
    extra = {"num_groups": 2} if norm == "group" else {}
    cfg = config({"name": norm, **extra}, cell, **given)
    dataset = data.load(cfg.data).with_parts(lambda part, x, y: (x[:64], y[:64]))
    configs = [cfg.model_copy(update={"seed": s}) for s in (0, 1, 2)]
    names = ("lengths", "shared_statistics", "step_statistics", "gradient_norm")

    def others(lost):
        nets = [run.build(c, dataset.shape, dataset.num_classes) for c in configs]
        stack = Widened(nets, CPU)
        for block in stack.blocks(stack.flat).values():
            if lost:
                block[1] = math.nan
        *_, rows = train(stack, dataset, configs, probes.find(names))
        return [rows[i] for i in (0, 2)]

    assert others(lost=True) == others(lost=False)
