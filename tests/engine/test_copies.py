"""Batches that are joined by corrupted copies of their own images."""

import pytest
import torch
import torch.nn.functional as F

from bnstudy import data
from bnstudy.config import Config
from bnstudy.engine.stack import make_stack
from bnstudy.engine.train import train, training_batches
from bnstudy.errors import UserError
from bnstudy.probes import find
from bnstudy.work.build import build, check

CPU = torch.device("cpu")


def config(norm=None, **train_settings):
    return Config.model_validate(
        {
            "data": {"train_size": 200},
            "model": {"name": "resnet", "width": 4},
            "norm": norm or {},
            "optimizer": {"lr": 0.05, "lr_rule": "none", "schedule": "constant"},
            "train": {"batch_size": 20, "epochs": 2, "corruption": "noise", **train_settings},
        }
    )


@pytest.fixture(scope="module")
def digits():
    return data.load(config().data)


def test_copies_stand_between_their_images_or_behind_them_all(digits):
    index = torch.arange(12).view(6, 2)
    clean, labels = digits.take("train", index)
    others = digits.corrupted("train", "blur", 4).take("train", index)[0]
    found = {}
    for copies in ("between", "behind"):
        settings = config(corruption="blur", severity=4, copies=copies).train
        found[copies] = training_batches(digits, settings)(index, [])
    x, y = found["between"]
    assert torch.equal(x[::2], clean)
    assert torch.equal(x[1::2], others)
    assert torch.equal(y[::2], labels)
    assert torch.equal(y[1::2], labels)
    x, y = found["behind"]
    assert torch.equal(x, torch.cat([clean, others]))
    assert torch.equal(y, torch.cat([labels, labels]))
    assert not torch.equal(clean, others)


def test_without_a_corruption_batches_are_as_they_were(digits):
    index = torch.arange(12).view(6, 2)
    plain = config(corruption="none").train
    for own, found in zip(
        digits.take("train", index), training_batches(digits, plain)(index, None), strict=True
    ):
        assert torch.equal(own, found)


def test_noise_of_training_images_is_not_that_of_test_images(digits):
    """The streams differ: the same pattern on image i of both parts could be learned by heart."""
    n = 50
    noise = []
    for part in ("train", "test"):
        before = getattr(digits, f"{part}_x")[:n]
        noise.append(getattr(digits.corrupted(part, "noise", 3), f"{part}_x")[:n] - before)
    both = torch.corrcoef(torch.stack([own.flatten() for own in noise]))[0, 1]
    assert both.abs() < 4 / (n * 64) ** 0.5  # four standard errors of no correlation


def test_groups_of_one_kind_are_two_forwards_apart(digits):
    """Gradient of the joined batch = mean of those of two forwards, each by its own statistics.

    Float64; ghost groups of the batch size, copies behind. Between them it is another gradient.
    """
    index = torch.arange(20)[:, None]
    gradients = {}
    for copies in ("behind", "between"):
        cfg = config({"name": "ghost", "group_size": 20}, copies=copies)
        stack = make_stack([build(cfg, (1, 8, 8), 10).double()], CPU, known=True)
        x, y = training_batches(digits.to(CPU, torch.float64), cfg.train)(index, [])
        with stack.training(True):
            stack.gradient(x, y)
        gradients[copies] = stack.grad.clone()
    net = build(config({"name": "batch"}), (1, 8, 8), 10).double().train()
    x, y = x[:, 0], y[:, 0]  # between: clean ones are the even ones
    loss = sum(F.cross_entropy(net(x[i::2]), y[i::2]) for i in (0, 1)) / 2
    apart = torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(net.parameters()))])
    assert torch.allclose(gradients["behind"], apart, rtol=1e-9, atol=1e-12)
    assert not torch.allclose(gradients["between"], apart, rtol=1e-3)


def test_the_probe_reads_corrupted_images_by_either_population(digits):
    cfg = config({"name": "ghost", "group_size": 20}, copies="behind", severity=5)
    configs = [cfg.model_copy(update={"seed": s}) for s in (0, 1)]
    stack = make_stack([build(c, (1, 8, 8), 10) for c in configs], CPU, known=True)
    *_, rows = train(stack, digits, configs, find(["copies"]))
    shifted = digits.corrupted("test", "noise", 5)
    for i, row in enumerate(rows):
        net = stack.alone(i).eval()
        with torch.no_grad():
            wrong = (net(shifted.test_x).argmax(-1) != digits.test_y).float().mean().item()
        assert row["corrupted_error"] == pytest.approx(wrong, abs=1.5 / 400)
        assert row["corrupted_error_own"] != row["corrupted_error"]
    plain = config(corruption="none")
    stack = make_stack([build(plain, (1, 8, 8), 10)], CPU, known=True)
    *_, rows = train(stack, digits, [plain], find(["copies"]))
    assert "corrupted_error" not in rows[0]


def test_what_cannot_have_copies_is_refused(digits):
    with pytest.raises(ValueError, match=r"set train\.corruption"):
        config(corruption="none", severity=4)
    with pytest.raises(ValueError, match=r"leave out train\.processes=2"):
        config(processes=2)
    with pytest.raises(UserError, match="does not divide the 40 images"):
        check(config({"name": "ghost", "group_size": 16}), digits)
    noisy = config()
    noisy = noisy.model_copy(
        update={"data": noisy.data.model_copy(update={"noise_every_step": True})}
    )
    with pytest.raises(UserError, match="noise_every_step"):
        check(noisy, digits)
