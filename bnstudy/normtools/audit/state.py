"""Checks of an audit: running statistics, evaluation, and what decides between the modes."""

import torch
from torch import Tensor

from bnstudy.normtools.audit.subject import (
    CHANNELS,
    RELATIVE,
    Answer,
    Maker,
    close,
    normalized,
    show,
    with_statistics,
)


def _updates(make: Maker) -> list[tuple[Tensor, Tensor, Tensor, Tensor]]:
    """Over four training steps: weight w of the newest batch by the mean, and by the variance
    with and without Bessel's correction; each (C,); and the shift itself."""
    s = make().set(gamma=torch.tensor([2.0, -1.0, 0.5, 3.0]), beta=torch.tensor([1.0, -2, 4, 0.5]))
    steps = []
    for seed in range(4):
        x = s.data(seed) * (1 + seed) + seed
        mean, var, m = s.moments(x)
        old_mean, old_var = s.own("mean"), s.own("var")
        s.train(x)
        moved_mean, moved_var = s.own("mean") - old_mean, s.own("var") - old_var
        unbiased = var * m / (m - 1)
        steps.append(
            (
                moved_mean / (mean - old_mean),
                moved_var / (unbiased - old_var),
                moved_var / (var - old_var),
                moved_mean.abs() + moved_var.abs(),
            )
        )
    return steps


def running_statistics(make: Maker) -> Answer:
    """Running statistics follow the moments of the input."""
    s = make()
    for role in ("mean", "var"):
        if s.get(role) is None:
            yield f"a running {role} per channel", "none"
    by_mean, by_unbiased, by_biased, moved = _updates(make)[-1]
    if moved.max() == 0:
        yield "running statistics move in training", "they stay"
    if not close(by_mean, by_mean.mean().expand(CHANNELS)):
        yield (
            "running_mean moves towards the batch mean of the input, all channels alike",
            f"by {show(by_mean)} of the way (with gamma and beta not 1 and 0)",
        )
    if not (close(by_unbiased, by_mean) or close(by_biased, by_mean)):
        yield (
            "running_var moves towards the batch variance of the input, as far as the mean",
            f"by {show(by_unbiased)} of the way, the mean by {show(by_mean)}",
        )


def unbiased_running_variance(make: Maker) -> Answer:
    """The running variance is Bessel-corrected."""
    by_mean, by_unbiased, by_biased, _ = _updates(make)[-1]
    if not close(by_unbiased, by_mean) and close(by_biased, by_mean):
        yield "running_var moves towards var * m / (m - 1)", "towards var, divided by m"


def batch_counter(make: Maker) -> Answer:
    """num_batches_tracked, where there is one, counts training steps."""
    s = make()
    for train in (True, True, False, True):
        s.train(s.data()) if train else s.evaluate(s.data())
    counter = getattr(s.module, "num_batches_tracked", None)
    if counter is not None and int(counter) != 3:
        yield "num_batches_tracked counts training steps: 3 after 3", f"{int(counter)}"


def momentum(make: Maker) -> Answer:
    """The running average keeps most of the past."""
    weight = _updates(make)[-1][0].mean().item()
    if not 0 < weight < 0.5:
        yield (
            "the newest batch weighs little, the past much (0.1 and 0.9 are usual)",
            f"the newest weighs {weight:.3g}: momentum is applied to the wrong term",
        )


def first_batch(make: Maker) -> Answer:
    """Running statistics start at 0 and 1, and the first batch is like any other."""
    s = make()
    for role, start in (("mean", 0.0), ("var", 1.0)):
        if not torch.equal(s.own(role), torch.full((CHANNELS,), start)):
            yield f"running_{role} starts at {start:g}", show(s.own(role))
    weights = [step[0].mean().item() for step in _updates(make)]
    if max(weights) - min(weights) > RELATIVE:
        yield (
            "every batch moves the running statistics by the same weight, the first included",
            f"weights {', '.join(f'{w:.3g}' for w in weights)}",
        )


def buffers(make: Maker) -> Answer:
    """Running statistics are saved, moved and not optimized."""
    s = make()
    s.train(s.data())
    parameters, state = dict(s.module.named_parameters()), s.module.state_dict()
    s.module.to(torch.float64)
    for role in ("mean", "var"):
        name, tensor = s.find(role)
        if name in parameters:
            yield f"running {role} is a buffer", f"{name} is a parameter: the optimizer changes it"
        elif tensor is None or name not in state:
            yield f"running {role} is in state_dict", f"{name} is a plain attribute: never saved"
        elif tensor.dtype != torch.float64:
            yield f"running {role} follows .to()", f"{name} stays {tensor.dtype}"


def detached(make: Maker) -> Answer:
    """Running statistics keep no graph."""
    s = make()
    s.train(s.data().requires_grad_())
    parameters = dict(s.module.named_parameters())
    for role in ("mean", "var"):
        name, tensor = s.find(role)
        if tensor is not None and tensor.requires_grad and name not in parameters:
            yield (
                f"running {role} holds values only",
                f"{name} requires grad: every step's graph is kept",
            )


# --- checks: evaluation and modes ----------------------------------------------------------------


def evaluation_statistics(make: Maker) -> Answer:
    """Evaluation uses the running statistics, each example for itself."""
    s, mean, var = with_statistics(make)
    x = s.data()
    y = s.evaluate(x)
    expected = (x - s.per_channel(mean)) / s.per_channel(var).sqrt()
    if not close(y, expected, 2e-3):
        batch = close(y, normalized(s, x), 2e-3)
        yield (
            "evaluation normalizes with the running statistics",
            "with the batch's own" if batch else "with something else",
        )
    one = s.evaluate(x[:1])
    if not close(one, expected[:1], 2e-3):
        yield "an example alone gives what it gives in a batch", "something else"


def evaluation_leaves_state(make: Maker) -> Answer:
    """Evaluation does not move the running statistics."""
    s, mean, var = with_statistics(make)
    s.evaluate(s.data())
    if not (torch.equal(s.own("mean"), mean) and torch.equal(s.own("var"), var)):
        yield "evaluation leaves the running statistics", "it updates them"


def modes_under_no_grad(make: Maker) -> Answer:
    """The mode is module.training, whether or not gradients are enabled."""
    s, mean, var = with_statistics(make)
    x = s.data()
    with torch.no_grad():
        y = s.train(x)
    if not close(y, normalized(s, x), 2e-3):
        yield "train() under no_grad uses the batch", "other statistics: the mode follows no_grad"
    if torch.equal(s.own("mean"), mean):
        yield "train() under no_grad updates the running statistics", "they stay"
    s, mean, var = with_statistics(make)
    s.module.eval()
    y = s.module(x)
    expected = (x - s.per_channel(mean)) / s.per_channel(var).sqrt()
    if not close(y, expected, 2e-3):
        yield (
            "eval() with gradients enabled uses the running statistics",
            "other statistics: the mode follows no_grad",
        )
    if not torch.equal(s.own("mean"), mean):
        yield "eval() with gradients enabled leaves the running statistics", "it updates them"


def batch_of_one(make: Maker) -> Answer:
    """One value per channel is refused in training, or leaves finite values."""
    s = make()
    x = s.data()[:1]
    for axis in range(2, s.ndim):
        x = x.narrow(axis, 0, 1)
    try:
        y = s.train(x)
    except Exception:  # a refusal is right: one value has no variance
        return
    for what, value in (
        ("output", y),
        ("running mean", s.own("mean")),
        ("running var", s.own("var")),
    ):
        if not value.isfinite().all():
            yield (
                "training on one value per channel is refused, or at least leaves finite values",
                f"{what} {value.flatten()[0].item()}: m / (m - 1) at m = 1",
            )
