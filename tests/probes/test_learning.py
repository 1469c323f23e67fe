"""Steps to a loss, fit and times, against what they must be."""

import itertools
import math
import time
from types import SimpleNamespace

import pytest
import torch

from bnstudy import data, norms
from bnstudy.config import Config
from bnstudy.engine.evaluate import View
from bnstudy.engine.mapped import Mapped
from bnstudy.engine.stack import make_stack
from bnstudy.errors import UserError
from bnstudy.probes import cost
from bnstudy.probes.learning import WINDOW, fit, steps_to_loss
from bnstudy.work import build as run

CPU = torch.device("cpu")


def config(norm="batch", model="mlp", dropout=0.0, **more) -> Config:
    plain = {"data": {"train_size": 100},
             "model": {"name": model, "hidden": (6,), "width": 2, "dropout": dropout},
             "norm": {"name": norm}, "train": {"batch_size": 20, "steps": 0}}  # fmt: skip
    return Config.model_validate({**plain, **more})


def view_of(cfg: Config, seeds=(0, 1), mapped=False) -> View:
    digits = data.load(cfg.data)
    configs = [cfg.model_copy(update={"seed": s}) for s in seeds]
    nets = [run.build(c, digits.shape, digits.num_classes) for c in configs]
    stack = Mapped(nets, CPU) if mapped else make_stack(nets, CPU, known=True)
    for buffer in stack.buffers.values():  # statistics that are not those of the beginning
        if buffer.is_floating_point():
            buffer.uniform_(0.5, 1.5)
    return View(stack, digits, cfg, tuple(seeds), None)


def steps(*losses) -> dict[str, list[float]]:
    found = steps_to_loss(SimpleNamespace(losses=torch.tensor(losses)))
    return {name.removeprefix("steps_to_"): values.tolist() for name, values in found.items()}


def test_a_level_is_reached_when_the_mean_of_ten_steps_is_below_it():
    """A loss that falls from 2 to 0 at once: k steps after it the mean is 2 (1 - k / 10)."""
    falls = [2.0] * 30 + [0.0] * 30
    found = steps(falls)
    assert found == {"1": [36], "0.5": [38], "0.25": [39], "0.1": [40]}


def test_a_loss_that_is_low_from_the_beginning_takes_the_window():
    assert steps([0.05] * 12)["0.1"] == [WINDOW]


def test_what_never_falls_below_a_level_has_no_number():
    found = steps([0.7] * 20, [math.nan] * 20, [0.2] * 5 + [math.inf] * 15)
    assert found["1"][0] == WINDOW
    assert all(map(math.isnan, found["0.5"]))
    assert all(map(math.isnan, found["1"][1:]))
    assert all(map(math.isnan, steps([0.0] * (WINDOW - 1))["0.1"]))  # no ten steps
    assert math.isnan(steps([])["1"][0])


def test_the_fit_is_read_in_evaluation_mode():
    view = view_of(config(dropout=0.9))
    found = fit(view)
    for i in (0, 1):
        net = view.stack.alone(i).eval()
        logits = net(view.data.train_x)
        loss = torch.nn.functional.cross_entropy(logits, view.data.train_y)
        assert found["fit_loss"][i].item() == pytest.approx(loss.item(), rel=1e-5)
        wrong = (logits.argmax(1) != view.data.train_y).float().mean().item()
        assert found["fit_error"][i].item() == pytest.approx(wrong, abs=1e-6)


@pytest.mark.parametrize("mapped", [False, True])
@pytest.mark.parametrize("model", ["mlp", "resnet"])
def test_a_network_alone_is_that_of_the_stack(model, mapped):
    view = view_of(config(model=model), mapped=mapped)
    x = view.data.test_x[:7]
    with view.stack.training(False):
        together = view.stack.predict(x[:, None].expand(-1, 2, -1, -1, -1))
    for i in (0, 1):
        alone = view.stack.alone(i)
        assert alone.training
        torch.testing.assert_close(alone.eval()(x), together[:, i], rtol=1e-5, atol=1e-5)
        with torch.no_grad():
            for parameter in alone.parameters():
                parameter.add_(1)  # a copy: the stack does not notice
    assert not torch.equal(alone(x), together[:, 1])
    with view.stack.training(False):
        assert torch.equal(together, view.stack.predict(x[:, None].expand(-1, 2, -1, -1, -1)))


def test_the_copy_of_a_single_network_is_a_copy():
    view = view_of(config(), seeds=(3,))
    before = view.stack.flat.clone()
    with torch.no_grad():
        for tensor in view.stack.alone(0).state_dict().values():
            tensor.add_(1)
    assert torch.equal(view.stack.flat, before)
    assert view.stack.alone(0).train(False) is not view.stack.net
    assert view.stack.net.training


@pytest.mark.parametrize("model", ["mlp", "resnet"])
def test_without_its_norms_a_network_is_that_of_norm_none(model):
    batch, none = (view_of(config(norm, model), (3,)).stack.alone(0) for norm in ("batch", "none"))
    bare = cost.without_norms(batch)
    assert norms.batch_norms(batch)
    assert not norms.batch_norms(bare)
    x = torch.randn(5, 1, 8, 8)
    assert torch.equal(bare(x), none(x))


def test_each_way_is_first_in_turn_and_ratios_are_of_neighbours():
    """A machine that slows down all the time: ratios of one round do not see it."""
    calls, speed, now = [], itertools.count(1), [0.0]

    def way(name, seconds):
        def call():
            calls.append(name)
            now[0] += seconds * (1 + next(speed) // 3)  # three ways to a round

        return call

    ways = {"own": way("own", 3.0), "bare": way("bare", 2.0), "folded": way("folded", 2.0)}
    found = cost.medians(cost.interleaved(ways, lambda: now[0], rounds=9), "predict")
    assert len(calls) == 3 * (cost.WARM + 9)
    assert {tuple(calls[i : i + 3]) for i in range(0, 9, 3)} == {
        ("own", "bare", "folded"), ("bare", "folded", "own"), ("folded", "own", "bare")
    }  # fmt: skip
    assert found["predict_ratio"] == pytest.approx(1.5, rel=0.2)
    assert found["folded_ratio"] == pytest.approx(1.0, rel=0.2)


def test_processor_time_does_not_pass_while_others_compute():
    """A way that sleeps costs nothing; one that computes does."""
    ways = {"own": lambda: time.sleep(0.01), "bare": lambda: sum(range(200_000))}
    found = cost.interleaved(ways, time.process_time, rounds=3)
    assert found["own"].max() < found["bare"].min()


@pytest.mark.parametrize(("norm", "folds"), [("batch", True), ("layer", False), ("none", False)])
def test_times_are_of_each_network_and_channels_are_counted(norm, folds):
    view = view_of(config(norm, "resnet"))
    before = {name: b.clone() for name, b in view.stack.buffers.items()}
    found = cost.step_time(view)
    assert ("folded_ratio" in found) is folds
    assert all(len(v) == 2 and (v > 0).all() for v in found.values())
    # widths 2, 4, 8: the first norm, two a block, one for each of two shortcuts
    assert found["normalized_channels"].tolist() == [2 + 2 * (2 + 4 + 8) + 4 + 8] * 2
    assert all(torch.equal(b, before[name]) for name, b in view.stack.buffers.items())


def test_several_processes_are_not_timed():
    plain = {"evaluate": {"probes": ["step_time"]}, "train": {"batch_size": 20, "processes": 2}}
    cfg = Config.model_validate({"data": {"train_size": 100}, **plain})
    with pytest.raises(UserError, match="step_time times networks of one process"):
        run.check(cfg, data.load(cfg.data))
