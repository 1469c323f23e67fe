"""Recurrent networks: other lengths than in training, statistics by step, gradients over time."""

from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor

from bnstudy.data.sequences import recut
from bnstudy.norms import StepBatchNorm
from bnstudy.norms.base import attributes

FACTORS = (0.25, 0.5, 1, 2, 5, 10)  # of the training length
TRUNCATED = 0.25  # of the training length: the ablation's number of steps with own statistics
POINTS = 32  # time steps that are reported, about
SMALLEST = 1e-30  # gradients below are left out of the slope: float32 ends soon after


def step_norms(view: Any) -> dict[str, StepBatchNorm]:
    """The norms with statistics per time step, by name."""
    return {n: m for n, m in view.stack.net.named_modules() if isinstance(m, StepBatchNorm)}


def lengths(view: Any) -> dict[str, Tensor]:
    """Test loss of a text, in bits for each character, read in windows of other lengths.

    `length/0500` and so on for FACTORS of the training length, with the population's statistics;
    for batch norm also `length_shared` (one mean and variance for all steps), `length_batch` (test
    batches of the training size) and `length_truncated` (own statistics in the first quarter of the
    training length only).
    """
    data, config = view.data, view.config
    if config.data.name != "text" or config.data.min_length:
        return {}
    norms = list(step_norms(view).values())
    training = config.data.length
    ways: dict[str, tuple[int, Any]] = {"length": (1, nullcontext)}
    if norms:
        size = config.train.batch_size
        few = max(round(TRUNCATED * training), 1)
        ways |= {
            "length_shared": (1, lambda: attributes(norms, scope="shared")),
            "length_truncated": (1, lambda: attributes(norms, truncate=few)),
            "length_batch": (size, lambda: view.batch_statistics(size)),
        }
    found = {}
    with view.stack.training(False):
        for factor in FACTORS:
            length = max(round(factor * training), 1)
            view.data = recut(data, length)
            for name, (multiple, context) in ways.items():
                with context():
                    loss, _ = view.score("test", multiple)
                found[f"{name}/{length:04d}"] = loss / torch.log(torch.tensor(2.0))
    view.data = data
    return found


def shared_statistics(view: Any) -> dict[str, Tensor]:
    """Test loss and error of batch norm per step, read with one mean and variance for all steps.

    `test_loss_shared`, `test_error_shared`: what averaging the statistics over time costs.
    """
    norms = list(step_norms(view).values())
    if not norms:
        return {}
    with view.stack.training(False), attributes(norms, scope="shared"):
        loss, error = view.score("test")
    return {"test_loss_shared": loss, "test_error_shared": error}


def step_statistics(view: Any) -> dict[str, Tensor]:
    """How batch norm's statistics differ by time step, and how many examples are behind them.

    For the recurrent term of the last layer, at steps t from 1: `behind/t`, the running number of
    valid examples; `drift/t`, the root mean square over channels of the distance of the running
    mean from that of the last step that training reached, in its standard deviations.
    """
    norms = {name: m for name, m in step_norms(view).items() if name.endswith("norm_hh")}
    if not norms:
        return {}
    norm = list(norms.values())[-1]
    size = view.stack.size
    mean, var = (b.unflatten(-1, (size, -1)) for b in (norm.running_mean, norm.running_var))
    steps = torch.arange(len(mean), device=mean.device)[:, None]
    last = torch.where(norm.examples > 0, steps, 0).amax(0)  # of the steps that training reached
    networks = torch.arange(size, device=mean.device)
    std = var[last, networks].sqrt()
    drift = ((mean - mean[last, networks]) / std).square().mean(-1).sqrt()
    found = {}
    for t in places(len(mean)):
        found[f"behind/{t + 1:04d}"] = norm.examples[t].clone()
        found[f"drift/{t + 1:04d}"] = drift[t]
    return found


def gradient_norm(view: Any) -> dict[str, Tensor]:
    """Norm of the loss's gradient by the hidden state, over time, on one training batch.

    `gradient/t`: log10 of the norm over batch and units at steps t from 1, -45 where it is zero (an
    underflow). `gradient_slope`: decades it gains for each 100 steps towards the end, by least
    squares over the steps where it is above 1e-30.
    """
    stack, data = view.stack, view.data
    net = stack.net
    if not hasattr(net, "keep_states"):
        return {}
    size = view.config.train.batch_size
    index = torch.arange(size)[:, None].expand(-1, stack.size).to(stack.flat.device)
    x, y = data.take("train", index)
    with attributes([net], keep_states=True), stack.training(True), stack.with_buffers({}):
        loss, *_ = stack.score(x, y)
        found = torch.autograd.grad(loss.sum(), net.states)
    net.states = []
    # in float64: squares of small numbers underflow first
    norm = torch.stack([g.double().square().sum((1, 2)).sqrt() for g in found])  # (T, S)
    log = norm.clamp(min=1e-45).log10()
    t = torch.arange(len(log), dtype=torch.float64, device=log.device)
    slopes = []
    for own, size_of in zip(log.T, norm.T, strict=True):
        kept = size_of > SMALLEST
        a, b = t[kept], own[kept]
        spread = (a - a.mean()).square().sum() if len(a) else torch.tensor(0.0)
        slope = ((a - a.mean()) * (b - b.mean())).sum() / spread if spread > 0 else torch.nan
        slopes.append(100 * float(slope))
    result = {"gradient_slope": torch.tensor(slopes)}
    for i in places(len(log)):
        result[f"gradient/{i + 1:04d}"] = log[i]
    return result


def places(steps: int) -> list[int]:
    """About POINTS time steps, evenly spaced, the first and the last among them."""
    return sorted({round(i * (steps - 1) / max(min(POINTS, steps) - 1, 1))
                   for i in range(min(POINTS, steps))})  # fmt: skip
