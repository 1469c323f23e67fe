"""Checks of an audit: the output in training, its affine map and its gradient."""

import torch

from bnstudy.normtools.audit.subject import (
    CHANNELS,
    RELATIVE,
    Answer,
    Maker,
    by_channel,
    close,
    line_through,
    normalized,
    show,
)


def input_untouched(make: Maker) -> Answer:
    """The forward changes neither the input nor its type."""
    s = make()
    x = s.data()
    before = x.clone()
    y = s.train(x)
    if not torch.equal(x, before):
        yield "the input is left as it was", "the forward changed it in place"
    if y.dtype != x.dtype:
        yield f"an output of the input's type {x.dtype}", f"{y.dtype}"


def training_statistics(make: Maker) -> Answer:
    """In training the running statistics have no say."""
    x = make().data()
    outputs = []
    for mean, var in ((0.0, 1.0), (3.0, 9.0)):
        s = make().set(gamma=1, beta=0, mean=mean, var=var)
        outputs.append(s.train(x))
    if not close(outputs[0], outputs[1]):
        yield (
            "the output in training depends on the batch alone",
            "it changes with the running statistics",
        )


def axes(make: Maker) -> Answer:
    """Statistics are taken over examples and all positions, per channel."""
    s = make().set(gamma=1, beta=0)
    x = s.data()
    slope, offset, spread = line_through(x, s.train(x))
    if spread.max() > RELATIVE:
        yield (
            "all values of a channel are mapped by one straight line",
            f"they scatter about it by {spread.max():.2g} of their spread: statistics are taken "
            "over other axes, not over examples and all positions",
        )
    mean = s.moments(x)[0]
    centre = slope * mean + offset
    if centre.abs().max() > RELATIVE:
        yield "every channel has mean 0 (gamma 1, beta 0)", f"means {show(centre)}"


def output_variance(make: Maker) -> Answer:
    """The output has variance 1: divided by the biased variance's root."""
    s = make().set(gamma=1, beta=0)
    x = s.data()
    _, var, m = s.moments(x)
    slope, _, _ = line_through(x, s.train(x))
    found = slope.square() * var
    if not close(found, torch.ones(CHANNELS)):
        unbiased = close(found, torch.full((CHANNELS,), (m - 1) / m), RELATIVE)
        yield (
            f"every channel has variance 1 over its m = {m} values",
            f"{show(found)}" + (" = (m - 1) / m: divided by m - 1" if unbiased else ""),
        )
    if (slope < 0).any():
        yield "larger inputs give larger outputs (gamma 1)", "the sign is reversed"


def eps(make: Maker) -> Answer:
    """eps lies inside the root, in training and in evaluation."""
    nominal = getattr(make().module, "eps", None)
    nominal = nominal if isinstance(nominal, float) and nominal > 0 else 1e-5
    x = make().data()
    rows = by_channel(x)
    unit = (rows - rows.mean(1, keepdim=True)) / rows.std(1, correction=0, keepdim=True)
    var = nominal * torch.tensor([0.1, 1.0, 10.0, 100.0])
    small = (unit * var.sqrt()[:, None]).reshape(CHANNELS, len(x), -1).transpose(0, 1)
    small = small.reshape(x.shape)
    s = make().set(gamma=1, beta=0)
    slope, _, _ = line_through(small, s.train(small))
    found = slope**-2 - var
    if not close(found[:2], torch.full((2,), nominal), 0.05):
        yield (
            f"1 / slope^2 - var = eps = {nominal:g} at every variance",
            f"{show(found)} at variances {show(var)}",
        )
    s = make().set(gamma=1, beta=0)
    constant = s.train(torch.full(s.shape, 0.75))
    if not constant.isfinite().all():
        yield "a constant channel gives 0", f"{constant.flatten()[0].item()}"
    s = make().set(gamma=1, beta=0, mean=0, var=var)
    slope, _, _ = line_through(small, s.evaluate(small))
    found = slope**-2 - var
    if not close(found[:2], torch.full((2,), nominal), 0.05):
        yield (
            f"1 / slope^2 - running_var = eps = {nominal:g} in evaluation",
            f"{show(found)} at running variances {show(var)}",
        )


def affine(make: Maker) -> Answer:
    """The affine map comes last: scaled, then shifted."""
    gamma, beta = torch.tensor([2.0, -1.0, 0.5, 3.0]), torch.tensor([1.0, -2.0, 4.0, 0.5])
    s = make()
    if s.get("gamma") is None and s.get("beta") is None:
        return
    x = s.data()
    for mode in ("train", "evaluate"):
        plain = getattr(make().set(gamma=1, beta=0), mode)(x)
        y = getattr(make().set(gamma=gamma, beta=beta), mode)(x)
        expected = plain * s.per_channel(gamma) + s.per_channel(beta)
        if not close(y, expected):
            wrong = plain * s.per_channel(gamma) + s.per_channel(gamma * beta)
            order = "gamma * (x_hat + beta)" if close(y, wrong) else "something else"
            yield f"gamma * x_hat + beta ({mode})", order


def affine_learned(make: Maker) -> Answer:
    """gamma and beta are parameters and receive their gradients."""
    s = make()
    if s.get("gamma") is None and s.get("beta") is None:
        return
    parameters = dict(s.module.named_parameters())
    for role in ("gamma", "beta"):
        name, tensor = s.find(role)
        if tensor is not None and name not in parameters:
            yield f"{role} ({name}) is a parameter", "it is none, so no optimizer sees it"
    x = s.data()
    y = s.train(x)
    upstream = s.data(seed=99)
    y.backward(upstream)
    x_hat = by_channel(normalized(s, x))
    expected = {"gamma": (by_channel(upstream) * x_hat).sum(1), "beta": by_channel(upstream).sum(1)}
    for role, value in expected.items():
        name, tensor = s.find(role)
        if tensor is None:
            continue
        if tensor.grad is None:
            yield f"a gradient for {role}", "none"
        elif not close(tensor.grad.flatten(), value, 1e-2):
            yield f"gradient {show(value)} for {role}", show(tensor.grad.flatten())


def gamma_init(make: Maker) -> Answer:
    """gamma starts at one."""
    gamma = make().get("gamma")
    if gamma is not None and not torch.equal(gamma, torch.ones(CHANNELS)):
        yield "gamma = 1 at first", show(gamma)


def beta_init(make: Maker) -> Answer:
    """beta starts at zero."""
    beta = make().get("beta")
    if beta is not None and not torch.equal(beta, torch.zeros(CHANNELS)):
        yield "beta = 0 at first", show(beta)


def gradient(make: Maker) -> Answer:
    """The gradient flows through mean and variance."""
    s = make().set(gamma=1, beta=0)
    x = s.data().requires_grad_()
    upstream = s.data(seed=99)
    (found,) = torch.autograd.grad(s.train(x), x, upstream)
    (expected,) = torch.autograd.grad(normalized(s, x), x, upstream)
    if not close(found, expected, 1e-2):
        sums = by_channel(found).sum(1).abs().max() / by_channel(expected).abs().sum(1).max()
        what = "the mean" if sums > 1e-2 else "the variance"
        yield (
            "the gradient of the definition: it sums to 0 and is orthogonal to x_hat",
            f"another one: {what} was taken as a constant, or wrongly differentiated",
        )


def precision(make: Maker) -> Answer:
    """A layer of float64 computes in float64."""
    s = make()
    s.module.double()
    x = s.data().double()
    *_, scatter = line_through(x, s.train(x))
    if scatter.max() > 1e-10:  # float64 keeps 1e-14, one rounding to float32 leaves 3e-8
        yield "float64 precision in a float64 layer", f"errors of {scatter.max():.1g}"
