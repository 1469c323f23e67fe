"""The loss along the gradient, and how layers' gradients shift (Santurkar et al. 2018)."""

from typing import Any

import torch
from torch import Tensor

from bnstudy.data.samplers import epoch_order, generator
from bnstudy.probes import course

RATES = tuple(0.5 * 8 ** (i / 7) for i in range(8))  # of the present rate: from 1/2 to 4 times it
LENGTHS = tuple(2.0**-i for i in range(10, 2, -1))  # of the weights: steps of 1/1024 to 1/8 |w|


def landscape(view: Any) -> dict[str, Tensor]:
    """Loss and gradient along the gradient g of a training batch, at each evaluation.

    At w - eta g for eta from 1/2 to 4 times the present learning rate: `loss_range/01` and so on,
    the largest loss minus the smallest; `gradient_range/01`, the same of |grad(w) - grad(w - eta
    g)|; `smoothness/01`, the largest of |grad(w) - grad(w - eta g)| / |eta g|, their effective
    beta-smoothness. With `_relative` in front of the slash the same for steps of 1/1024 to 1/8 of
    the length of w, all parameters together, whatever the rate, and of gradients times that length:
    in units in which a loss that does not change with the length of w looks the same at every
    length. Of gradients that are not finite everything is NaN.

    All on one batch, another one at each evaluation, drawn from (seed, "landscape"), in training
    mode, every point from the same buffers and with the same noise; all is put back.
    """
    line, rates = Line(view, "landscape"), rates_of(view)
    length, steepness = line.norm(line.start), line.norm(line.gradient)
    found: dict[str, Tensor] = {}
    for suffix, steps, unit in (
        ("", [factor * rates for factor in RATES], torch.ones_like(length)),
        ("_relative", [factor * length / steepness for factor in LENGTHS], length),
    ):
        losses, moved, slopes = [], [], []
        for eta in steps:
            loss, gradient = line.at(eta)
            change = line.norm(gradient - line.gradient)
            losses.append(loss)
            moved.append(change * unit)
            slopes.append(change / (eta * steepness) * unit**2)
        for name, values in (("loss_range", losses), ("gradient_range", moved)):
            each = torch.stack(values)
            found |= course(view, f"{name}{suffix}", each.amax(0) - each.amin(0))
        found |= course(view, f"smoothness{suffix}", torch.stack(slopes).amax(0))
    return found


def covariate_shift(view: Any) -> dict[str, Tensor]:
    """Internal covariate shift as Santurkar et al. define it (section 2.2), at each evaluation.

    For each weight matrix or kernel but the first: G, its gradient on a training batch, and G', the
    same after one step, at the present rate, of all parameters before it. `shift_norm/01` and so
    on: |G - G'| / |G|, `shift_cosine/01`: the cosine of G and G', means over the layers. One batch
    at each evaluation, as in `landscape`.
    """
    stack, line = view.stack, Line(view, "landscape")
    rates = rates_of(view)
    names = list(stack.shapes)
    weights = [name for name in names if len(stack.shapes[name]) > 1]
    before = stack.blocks(line.gradient)
    norms, cosines = [], []
    for name in weights[1:]:
        _, moved = line.at(rates, names[: names.index(name)])
        g, other = (blocks[name].flatten(1).double() for blocks in (before, stack.blocks(moved)))
        norms.append((g - other).norm(dim=1) / g.norm(dim=1))
        cosines.append((g * other).sum(1) / (g.norm(dim=1) * other.norm(dim=1)))
    if not norms:
        return {}
    return {
        **course(view, "shift_norm", torch.stack(norms).mean(0)),
        **course(view, "shift_cosine", torch.stack(cosines).mean(0)),
    }


def rates_of(view: Any) -> Tensor:
    """The learning rate of each network at the last step, (S,); at first that of the first step."""
    step = max(view.losses.shape[1] - 1, 0)
    rates = [view.update.lr(step, i) for i in range(view.stack.size)]
    return torch.tensor(rates, dtype=torch.float64, device=view.stack.flat.device)


class Line:
    """Loss and gradient of one training batch on the line w - eta g through the present weights.

    Attributes:
        start: w, a copy.
        loss: of the batch at w, (S,).
        gradient: g, of the shape of w.
    """

    def __init__(self, view: Any, purpose: str) -> None:
        self.stack = view.stack
        size, n = view.config.train.batch_size, view.data.size("train")
        purpose = f"{purpose} {view.losses.shape[1]}"  # the step
        streams = [generator(seed, purpose) for seed in view.seeds]
        index = torch.stack([epoch_order(n, g)[:size] for g in streams], dim=1)
        noise = [generator(seed, f"{purpose} noise") for seed in view.seeds]
        self.x, self.y = view.data.take("train", index.to(self.stack.flat.device), noise)
        self.start = self.stack.flat.clone()
        self.gradient = torch.zeros_like(self.start)
        self.loss, self.gradient = self.at(torch.zeros(self.stack.size, dtype=torch.float64))

    def at(self, eta: Tensor, names: list[str] | None = None) -> tuple[Tensor, Tensor]:
        """Loss (S,) and gradient at w - eta g, eta (S,); the stack is as before after it.

        names: of the parameters that move; None: all.
        """
        stack = self.stack
        found = stack.grad.clone()
        direction = self.gradient
        if names is not None:
            direction = torch.zeros_like(self.gradient)
            to, own = stack.blocks(direction), stack.blocks(self.gradient)
            for name in names:
                to[name].copy_(own[name])
        devices = [stack.flat.device] if stack.flat.is_cuda else []
        # the same noise at every point, and none of training's
        with torch.random.fork_rng(devices=devices), stack.training(True), stack.with_buffers({}):
            try:
                stack.flat.sub_(direction * stack.spread(eta.tolist()))
                loss = stack.gradient(self.x, self.y)[0].detach().clone().double()
                return loss, stack.grad.clone()
            finally:
                stack.flat.copy_(self.start)
                stack.grad.copy_(found)

    def norm(self, flat: Tensor) -> Tensor:
        """Euclidean norm of each network's part of a vector like its weights, (S,)."""
        each = [b.flatten(1).double().square().sum(1) for b in self.stack.blocks(flat).values()]
        return torch.stack(each).sum(0).sqrt()
