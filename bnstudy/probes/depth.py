"""Signals and gradients layer by layer: what depth makes of them, on one batch in training mode."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call

from bnstudy.data.samplers import epoch_order, generator
from bnstudy.mean_field import growth, middle

ACTIVATIONS = (nn.ReLU, nn.Tanh, nn.Sigmoid)  # also where a model does not mark them
SMALLEST = 1e-90  # squared norms below count as this
# saturated: the slope is below 5 % of its largest; of ReLU, where there is none
FLAT = 0.05
SLOPES: dict[type[nn.Module], Callable[[Tensor], Tensor]] = {  # of an output, 1 at most
    nn.ReLU: lambda y: (y > 0).double(),
    nn.Tanh: lambda y: 1 - y**2,
    nn.Sigmoid: lambda y: 4 * y * (1 - y),
}
FEWEST = 3  # layers that a slope takes


class Call(NamedTuple):
    """One call of a layer, and its tensors (N, S * C, *)."""

    layer: nn.Module
    inputs: tuple[Tensor, ...]
    output: Tensor


def layer_gradients(view: Any) -> dict[str, Tensor]:
    """Squared norm of the loss's gradient by each layer's output, over the batch and all units.

    Layers are the sums of residual blocks; in a plain network its activations, from the first
    weights on. `layer_gradient/01`, ...: log10, -90 where it is zero. `gradient_growth`: factor per
    layer towards the input, of the middle layers (`mean_field.growth`).
    """
    rows: list[Tensor] = []  # of each pass, (layers, networks)
    for calls, loss in _passes(view):
        stream = [call for call in calls if _is_join(call.layer)] or calls
        outputs = [call.output for call in stream if call.output.requires_grad]
        if not outputs:
            return {}
        found = torch.autograd.grad(loss.sum(), outputs, materialize_grads=True)
        # in float64: squares of small numbers underflow first
        squares = [_by_network(g.double().square(), len(loss)).sum(1) for g in found]
        rows.append(torch.stack(squares))
    logs = torch.cat(rows, dim=1).clamp(min=SMALLEST).log()
    result = {f"layer_gradient/{i:02d}": v / math.log(10) for i, v in enumerate(logs, start=1)}
    if len(middle(len(logs))) >= FEWEST:
        result["gradient_growth"] = torch.tensor([growth(own) for own in logs.T.tolist()])
    return result


def activation_moments(view: Any) -> dict[str, Tensor]:
    """Mean and standard deviation of each activation over the batch and all units.

    `activation_mean/01`, `activation_sd/01`, and `saturated/01`: the part of values where the
    slope of ReLU is zero, that of tanh or sigmoid below 5 % of its largest. Sums of residual blocks
    count as layers, without saturation.
    """
    rows: dict[str, list[Tensor]] = {}
    for calls, loss in _passes(view):
        for i, call in enumerate(calls, start=1):
            own = _by_network(call.output.detach().double(), len(loss))
            found = {"activation_mean": own.mean(1), "activation_sd": own.std(1, unbiased=False)}
            if slope := SLOPES.get(type(call.layer)):
                found["saturated"] = (slope(own) < FLAT).double().mean(1)
            for name, values in found.items():
                rows.setdefault(f"{name}/{i:02d}", []).append(values)
    return {name: torch.cat(values) for name, values in rows.items()}


def branch_variance(view: Any) -> dict[str, Tensor]:
    """The part of the variance that each residual branch adds to its shortcut's.

    `branch_share/01`, ... by block: Var(branch) / (Var(branch) + Var(shortcut)), each over the
    batch and all units. With batch norm on the branch of block l it is 1 / (l + 1), without a norm
    1 / 2 (De & Smith 2020, section 3).
    """
    rows: dict[str, list[Tensor]] = {}
    for calls, loss in _passes(view):
        joins = [call for call in calls if _is_join(call.layer)]
        for i, call in enumerate(joins, start=1):
            shortcut = call.inputs[0]
            added, kept = (
                _by_network(t.detach().double(), len(loss)).var(1, unbiased=False)
                for t in (call.output - shortcut, shortcut)
            )
            rows.setdefault(f"branch_share/{i:02d}", []).append(added / (added + kept))
    return {name: torch.cat(values) for name, values in rows.items()}


# --- helpers -------------------------------------------------------------------------------------


def _is_join(module: nn.Module) -> bool:
    return getattr(module, "is_join", False)


def _is_layer(module: nn.Module) -> bool:
    marked = getattr(module, "is_activation", False)
    return marked or isinstance(module, ACTIVATIONS) or _is_join(module)


def _by_network(values: Tensor, networks: int) -> Tensor:
    """(N, S * C, *), the channels of S networks side by side, as (S, values)."""
    return values.unflatten(1, (networks, -1)).transpose(0, 1).flatten(1)


def _batch(view: Any) -> tuple[Tensor, Tensor]:
    """A training batch of each network, drawn from (seed, "probe"), with the noise of training."""
    n, size = view.data.size("train"), view.config.train.batch_size
    orders = [epoch_order(n, generator(seed, "probe"))[:size] for seed in view.seeds]
    noise = [generator(seed, "probe_noise") for seed in view.seeds]
    index = torch.stack(orders, dim=1).to(view.stack.flat.device)
    return view.data.take("train", index, noise)


def _passes(view: Any) -> Iterator[tuple[list[Call], Tensor]]:
    """Forward passes that together show each network its batch: layers as called, and the loss.

    One pass where networks are widened; one network after the other where they are mapped, for
    under a map there is nothing that a gradient could be taken by. Buffers are as before after it.
    """
    stack, (x, y) = view.stack, _batch(view)
    shapes = {name: p.shape for name, p in stack.net.named_parameters()}
    with stack.training(True), stack.with_buffers({}):
        if shapes != stack.shapes:
            with _recorded(stack.net) as calls:
                loss = stack.score(x, y)[0]
            yield calls, loss
            return
        for i in range(stack.size):
            weights = {k: p.clone().requires_grad_() for k, p in stack.parameters(i).items()}
            buffers = {k: b.clone() for k, b in stack.buffers_of(i).items()}
            with _recorded(stack.net) as calls:
                output = functional_call(stack.net, (weights, buffers), (x[:, i],))
            yield calls, stack.task.score(output[:, None], y[:, i : i + 1])[0]


@contextmanager
def _recorded(net: nn.Module) -> Iterator[list[Call]]:
    """The calls of activations and residual sums within the block, in their order."""
    calls: list[Call] = []

    def keep(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        calls.append(Call(module, inputs, output))

    hooks = [m.register_forward_hook(keep) for m in net.modules() if _is_layer(m)]
    try:
        yield calls
    finally:
        for hook in hooks:
            hook.remove()
