"""Moving the flat parameters of a stack: torch.optim's formulas, each network with its numbers."""

import math
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from bnstudy.config import OptimizerConfig
from bnstudy.engine.stack import Stack


def step_at(fraction: float, total: int) -> int:
    """The first step of `total` at which a fraction of training is over: 0.55 of 100 is step 55.

    A product of doubles errs by less than 1e-9 below a million steps; without that allowance
    0.55 * 100 = 55.00000000000001 would be step 56.
    """
    return math.ceil(fraction * total - 1e-9)


class Optimizer:
    """SGD with heavy-ball momentum, or Adam, over the flat parameters.

    lr follows the schedule: constant, `decay` at each milestone, half a cosine to zero, or times
    `growth` at each step. The networks' configs differ in lr and weight decay at most.
    """

    def __init__(
        self, configs: Sequence[OptimizerConfig], stack: Stack, batch_size: int, total: int
    ) -> None:
        self.config, self.stack, self.total = configs[0], stack, total
        self.base_lr = [c.lr_at(batch_size) for c in configs]
        self._lr = stack.spread(self.base_lr)
        self._decay = stack.spread([c.weight_decay for c in configs])
        self._decays = any(c.weight_decay for c in configs)
        norms = {name for name, m in stack.net.named_modules() if getattr(m, "is_norm", False)}
        others = {name for name in stack.shapes if name.rpartition(".")[0] not in norms}
        self._moves = None  # 1 where parameters move; None: all do
        if self.config.trainable != "all":
            # matrices and kernels; biases are vectors
            weights = [name for name in stack.shapes if len(stack.shapes[name]) > 1]
            hidden = self.config.trainable == "hidden_weights"
            self._moves = self._mask(others.intersection(weights[:-1] if hidden else weights))
            self._decay = self._decay * self._moves
        if self._decays and not self.config.decay_norm:
            self._decay = self._decay * self._mask(others)
        self.first = torch.zeros_like(stack.flat)
        self.second = torch.zeros_like(stack.flat) if self.config.name == "adam" else None
        self.average = None
        self.averaged_statistics: dict[str, Tensor] = {}  # buffers of batch norms, averaged alike
        if self.config.weight_average:
            self.average = stack.flat.clone()
            self.averaged_statistics = {
                name: b.clone() for name, b in stack.buffers.items() if b.is_floating_point()
            }
            self._first_averaged = step_at(self.config.average_from, total)
            # a horizon shorter than a batch: the newest weights alone
            self._share = min(batch_size / self.config.weight_average, 1)

    def _mask(self, names: Collection[str]) -> Tensor:
        """1 for the parameters of these names, else 0; of the shape of `flat`."""
        stack = self.stack
        parts = [
            torch.full((stack.size * shape.numel(),), float(name in names), dtype=stack.flat.dtype)
            for name, shape in stack.shapes.items()
        ]
        return torch.cat(parts).to(stack.flat.device)

    def factor(self, step: int) -> float:
        """What the schedule makes of the initial learning rate at this step."""
        config = self.config
        if config.schedule == "cosine":
            return 0.5 * (1 + math.cos(math.pi * (step / max(self.total, 1))))
        if config.schedule == "step":
            return config.decay ** sum(step >= step_at(m, self.total) for m in config.milestones)
        if config.schedule == "exponential":
            try:
                return config.growth**step
            except OverflowError:  # beyond what a float holds the network has diverged
                return math.inf
        return 1.0

    def lr(self, step: int, network: int = 0) -> float:
        """Learning rate of a network at this step."""
        return self.base_lr[network] * self.factor(step)

    @torch.no_grad()
    def __call__(self, step: int) -> None:
        """Move the stack's parameters along the gradient it holds."""
        config, flat, gradient = self.config, self.stack.flat, self.stack.grad
        if self._moves is not None:
            gradient = gradient * self._moves
        if config.clip_norm:
            self._clip(gradient, config.clip_norm)
        if self._decays:
            gradient = gradient.addcmul(flat, self._decay) if isinstance(
                self._decay, Tensor
            ) else gradient.add(flat, alpha=self._decay)  # fmt: skip
        if self.second is None:
            # one pass over memory instead of two: first = momentum * first + gradient
            torch.add(gradient, self.first, alpha=config.momentum, out=self.first)
            self._move(self.first, self.factor(step))
        else:
            beta1, beta2 = config.momentum, config.beta2
            self.first.mul_(beta1).add_(gradient, alpha=1 - beta1)
            self.second.mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)
            root = (self.second / (1 - beta2 ** (step + 1))).sqrt_().add_(1e-8)
            self._move(self.first / root, self.factor(step) / (1 - beta1 ** (step + 1)))
        if self.average is not None:
            # at first the plain mean: the horizon is not yet filled; before, the newest alone
            share = max(1 / (max(step - self._first_averaged, 0) + 1), self._share)
            self.average.mul_(1 - share).add_(flat, alpha=share)
            for name, value in self.averaged_statistics.items():
                value.mul_(1 - share).add_(self.stack.buffers[name], alpha=share)

    def _clip(self, gradient: Tensor, limit: float) -> None:
        """Scale each network's gradient to a norm of at most `limit`, in place."""
        blocks = [b.flatten(1) for b in self.stack.blocks(gradient).values()]
        norm = torch.stack([b.square().sum(1) for b in blocks]).sum(0).sqrt()
        factor = (limit / norm.clamp(min=1e-30)).clamp(max=1)
        for block in blocks:
            block.mul_(factor[:, None])

    def _move(self, direction: Tensor, factor: float) -> None:
        if isinstance(self._lr, Tensor):
            self.stack.flat.addcmul_(direction, self._lr, value=-factor)
        else:
            self.stack.flat.sub_(direction, alpha=self._lr * factor)

    @contextmanager
    def averaged_weights(self) -> Iterator[None]:
        """The averaged weights in the stack within the block; bits as before after it."""
        before = self.stack.flat.clone()
        self.stack.flat.copy_(self.average)
        try:
            yield
        finally:
            self.stack.flat.copy_(before)
