"""Adaptation to streams: Tent against a plain loop of torch, and what is measured on the way."""

import math
from dataclasses import replace
from functools import partial

import pytest
import torch

from bnstudy import data
from bnstudy.config import Config
from bnstudy.data.corruptions import corrupt
from bnstudy.engine.evaluate import View
from bnstudy.engine.stack import make_stack
from bnstudy.norms import Norm, evaluation_mode
from bnstudy.probes import adaptation
from bnstudy.work.build import build

CPU = torch.device("cpu")
SEEDS = (3, 4)


def config(model="resnet", norm="batch", **evaluate):
    return Config.model_validate(
        {
            "data": {"train_size": 200},
            "model": {"name": model, "hidden": (16,), "width": 4},
            "norm": {"name": norm, **({"num_groups": 2} if norm == "group" else {})},
            "evaluate": {"stream": 40, "adaptation_lr": 0.1, **evaluate},
        }
    )


@pytest.fixture(scope="module")
def digits():
    return data.load(config().data)


def view_of(cfg, dataset, known=True):
    nets = [build(cfg.model_copy(update={"seed": s}), (1, 8, 8), 10) for s in SEEDS]
    return View(make_stack(nets, CPU, known), dataset, cfg, SEEDS, None), nets


def test_entropy_by_hand():
    """Two equal answers: log 2. Certain: 0. Of each network by itself."""
    logits = torch.tensor([[[0.0, 0.0], [0.0, -200.0]], [[1.0, 1.0], [-200.0, 0.0]]])
    entropy, answers = adaptation.Entropy().score(logits, torch.zeros(2, 2))
    assert entropy.tolist() == pytest.approx([math.log(2), 0.0], abs=1e-6)
    assert answers.shape == (2, 2)
    assert answers[1].tolist() == [0, 1]


@pytest.mark.parametrize("known", [True, False])  # side by side, mapped
@pytest.mark.parametrize("size", [1, 4])
@pytest.mark.parametrize("norm", ["batch", "group"])
def test_tent_is_torch_s_adam_on_gamma_and_beta(digits, norm, size, known):
    """Each network of a stack adapts as a plain one; float32, ten steps of a rate of 0.1 / 64.

    Adam divides a gradient by its own size: one that is rounding would move as far as others. Here
    entropies have gradients of 1e-3 and more, which float32 rounds to 1e-6 of themselves; ten steps
    of 0.1 * 4 / 64 could move a parameter by 0.06, and agree to 1e-3 of that.
    """
    cfg = config(norm=norm)
    view, nets = view_of(cfg, digits, known)
    rows, _ = adaptation.streams(view)["mixed"]
    rows = rows[: 10 * size]
    affine = adaptation._affine(view)
    moved = {}

    before = view.stack.flat.clone()
    with view.stack.training(False):
        if norm == "batch":
            with view.batch_statistics(size):
                found = adaptation.tent(view, rows, size, affine)
        else:
            found = adaptation.tent(view, rows, size, affine)
    assert torch.equal(view.stack.flat, before)
    for i, net in enumerate(nets):
        net = view.stack.alone(i).eval()
        own = [p for m in net.modules() if isinstance(m, Norm) for p in m.parameters()]
        moved[i] = sum(p.numel() for p in own)
        adam = torch.optim.Adam(own, lr=0.1 * size / 64)
        answers = []
        for index in rows[:, i].split(size):
            with evaluation_mode(net, "batch") if norm == "batch" else torch.enable_grad():
                logits = net(digits.test_x[index])
            answers.append(logits.argmax(-1))
            p = logits.softmax(-1)
            adam.zero_grad()
            (-(p * p.log()).sum(-1).mean()).backward()
            adam.step()
        # an answer between two nearly equal logits may turn: one of the stream
        assert (torch.cat(answers) != found[:, i]).sum() <= 1
    assert affine.sum() == sum(moved.values())


def test_adaptation_moves_gamma_and_beta_down_the_entropy(digits):
    """On one batch again and again: its entropy falls, and only gamma and beta have moved."""
    view, _ = view_of(config(), digits)
    stack, rows = view.stack, torch.arange(32)[:, None].expand(-1, 2)
    affine, seen = adaptation._affine(view), []

    class Watched(adaptation.Entropy):
        def score(self, logits, y):
            found = super().score(logits, y)
            seen.append((found[0].detach(), stack.flat.clone()))
            return found

    with pytest.MonkeyPatch.context() as patch, stack.training(False), view.batch_statistics(32):
        patch.setattr(adaptation, "Entropy", Watched)
        adaptation.tent(view, rows.repeat(30, 1), 32, affine)
    entropies = torch.stack([entropy for entropy, _ in seen])
    assert (entropies[-1] < 0.9 * entropies[0]).all()
    shift = (seen[-1][1] - seen[0][1]).abs()
    assert (shift[affine == 0] == 0).all()
    assert (shift[affine == 1] > 0).float().mean() > 0.9


def test_streams_hold_every_example_equally_often_and_sorted_ones_class_after_class(digits):
    n = digits.size("test")
    view, _ = view_of(config(stream=2 * n), digits)
    found = adaptation.streams(view)
    assert {name: size for name, (_, size) in found.items()} == {
        "mixed": 64, "single": 1, "sorted": 64
    }  # fmt: skip
    length = 2 * n // 64 * 64
    for i in range(len(SEEDS)):
        mixed, by_class = (found[name][0][:, i] for name in ("mixed", "sorted"))
        assert len(mixed) == length
        assert sorted(mixed[:n].tolist()) == list(range(n))
        assert sorted(mixed.tolist()) == sorted(by_class.tolist())
        assert digits.labels("test", i)[by_class].diff().min() == 0
    assert not torch.equal(found["mixed"][0][:, 0], found["mixed"][0][:, 1])


@pytest.mark.parametrize("severity", [2, 4])
def test_the_network_left_alone_makes_the_errors_of_the_corrupted_part(digits, severity):
    """One pass over the whole test part: the same examples by the same statistics."""
    n = digits.size("test")  # 400, and with a stream of 400 batches are of 40
    view, _ = view_of(config(stream=n, severity=severity), digits)
    found = adaptation.adaptation(view)
    change = partial(corrupt, name="blur", severity=severity)
    with view.stack.training(False):
        expected = replace(view, data=digits.with_raw("test", change)).score("test")[1]
    for stream in ("mixed", "single", "sorted"):
        assert torch.allclose(found[f"{stream}_source_blur_error"], expected, atol=1e-6)


def test_halves_and_shares_by_hand():
    """Eight answers of one network: wrong at 0, 6 and 7; of the last four three are class 2."""
    labels = torch.tensor([0, 1, 0, 1, 2, 1, 0, 1])[:, None]
    answers = torch.tensor([1, 1, 0, 1, 2, 1, 2, 2])[:, None]
    found = adaptation._scored("k", answers, labels)
    assert found["k_error"].tolist() == [3 / 8]
    assert found["k_late_error"].tolist() == [2 / 4]
    assert found["k_share"].tolist() == [3 / 4]


def test_what_cannot_adapt_has_no_columns(digits):
    """No norm: no gamma. Group norm: no batch statistics. An MLP's BN: none of one example."""
    ways = {}
    for model, norm in (("mlp", "none"), ("resnet", "group"), ("mlp", "batch")):
        found = adaptation.adaptation(view_of(config(model, norm), digits)[0])
        ways[model, norm] = {tuple(k.split("_")[:2]) for k in found}
    single = {way for stream, way in ways["mlp", "batch"] if stream == "single"}
    assert single == {"source"}
    assert {way for _, way in ways["mlp", "none"]} == {"source"}
    assert {way for _, way in ways["resnet", "group"]} == {"source", "tent"}
    assert {way for _, way in ways["mlp", "batch"]} == {"source", "batch", "tent"}


def test_another_rate_and_another_length_are_other_results(digits):
    plain = adaptation.adaptation(view_of(config(), digits)[0])
    faster = adaptation.adaptation(view_of(config(adaptation_lr=1.0), digits)[0])
    longer = adaptation.adaptation(view_of(config(stream=80), digits)[0])
    key = "mixed_tent_noise_error"
    assert not torch.equal(plain[key], faster[key])
    assert not torch.equal(plain[key], longer[key])
    assert torch.equal(plain["mixed_source_noise_error"], faster["mixed_source_noise_error"])


def test_steps_of_another_loss_leave_the_compiled_ones_and_the_precision(digits):
    view, _ = view_of(config(), digits)
    stack, before = view.stack, view.stack.task
    stack._gradients, stack.precision = None, "bf16"  # stands for a compiled function

    def raises():
        with stack.scored_by(adaptation.Entropy()):
            assert stack._gradients == stack.gradients
            assert stack.precision == "float32"
            raise ArithmeticError

    with pytest.raises(ArithmeticError):
        raises()
    assert stack._gradients is None
    assert (stack.task, stack.precision) == (before, "bf16")
