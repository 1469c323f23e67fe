"""The training loop. There is one."""

import math
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from bnstudy.config import Config, OptimizerConfig
from bnstudy.data.samplers import batches, epoch_order, generator
from bnstudy.engine.evaluate import evaluate
from bnstudy.engine.vectorize import Stack

Row = dict[str, Any]


def train(
    stack: Stack,
    data: Any,
    config: Config,
    seeds: tuple[int, ...],
    on_step: Callable[[int, int], None] = lambda step, total: None,
) -> Iterator[list[Row]]:
    """Train a stack; yield, after each evaluation, one row of measurements per seed.

    All networks share the config and differ in their seed: initial weights (already in the stack)
    and the order of examples, drawn from (seed, "order"). Divergence is data: a network whose loss
    is not finite goes on, counts as chance from that step on, and its row says `diverged_at`.

    Args:
        stack: the networks; its tensors are changed in place.
        data: a Dataset on the stack's device.
        config: what the networks share.
        seeds: one per network.
        on_step: called before each optimiser step with (step, total); may raise to stop.
    """
    n, size = len(data.train_y), config.train.batch_size
    per_epoch = n // size
    total = config.train.total_steps(n)
    orders = [generator(seed, "order") for seed in seeds]
    update = Optimizer(config.optimizer, stack, size, total)
    freeze_step = math.ceil(config.norm.freeze_at * total)
    log = torch.full((2, stack.size, max(total, 1)), math.nan, device=stack.flat.device)
    due = evaluation_steps(total, per_epoch, config.evaluate.every)
    since = 0
    if total == 0:
        yield rows(stack, data, config, seeds, 0, log[..., :0], update.lr(0), per_epoch)
    with stack.training(True):
        for step in range(total):
            on_step(step, total)
            if step % per_epoch == 0:
                epoch = torch.stack([batches(epoch_order(n, g), size) for g in orders], dim=-1)
                epoch = epoch.to(stack.flat.device)  # (steps, B, S)
            if step == freeze_step:
                for module in stack.net.modules():
                    if hasattr(module, "frozen"):
                        module.frozen = True
            index = epoch[step % per_epoch]
            loss, wrong = stack.gradient(data.train_x[index], data.train_y[index])
            update(step)
            log[0, :, step], log[1, :, step] = loss, wrong
            if step + 1 in due:
                seen = log[..., since : step + 1]
                first_bad = diverged_at(log[0, :, : step + 1])
                yield rows(stack, data, config, seeds, step + 1, seen, update.lr(step), per_epoch,
                           first_bad)  # fmt: skip
                since = step + 1


def evaluation_steps(total: int, per_epoch: int, every: int) -> set[int]:
    """After which steps to measure: each `every`-th end of an epoch, and the last step."""
    return {*range(per_epoch * every, total + 1, per_epoch * every), total}


def diverged_at(losses: Tensor) -> list[int | None]:
    """For each network the first step with a loss that is not finite; losses (S, steps)."""
    bad = ~losses.isfinite()
    first = bad.int().argmax(1)
    return [int(f) if b else None for f, b in zip(first, bad.any(1), strict=True)]


def rows(
    stack: Stack,
    data: Any,
    config: Config,
    seeds: tuple[int, ...],
    step: int,
    seen: Tensor,
    lr: float,
    per_epoch: int,
    diverged: list[int | None] | None = None,
) -> list[Row]:
    """One row per seed: progress, the loss and error of training since the last row, evaluation.

    `train_loss` and `train_error` are means over the training batches since the last row, in
    training mode (for BN with batch statistics) and while the weights move.
    """
    measured = evaluate(stack, data, config, seeds)
    measured["train_loss"], measured["train_error"] = seen.mean(-1)
    columns = {name: values.tolist() for name, values in measured.items()}
    chance = 1 - 1 / data.num_classes
    result = []
    for i, seed in enumerate(seeds):
        row: Row = {
            "seed": seed,
            "step": step,
            "epoch": step / per_epoch,
            "examples": step * config.train.batch_size,
            "lr": lr,
            "diverged_at": diverged[i] if diverged else None,
        }
        for name, values in columns.items():
            row[name] = values[i]
            if row["diverged_at"] is not None:
                row[name] = chance if "error" in name else math.nan
        result.append(row)
    return result


class Optimizer:
    """SGD with heavy-ball momentum, or Adam, over the flat parameters; torch.optim's formulas.

    lr follows the schedule: constant, `decay` at each milestone, or half a cosine to zero.
    """

    def __init__(self, config: OptimizerConfig, stack: Stack, batch_size: int, total: int) -> None:
        self.config, self.stack, self.total = config, stack, total
        self.base_lr = config.lr_at(batch_size)
        self.first = torch.zeros_like(stack.flat)
        self.second = torch.zeros_like(stack.flat) if config.name == "adam" else None
        self.decayed = 1.0 if config.decay_norm else self._weights_mask(stack)

    @staticmethod
    def _weights_mask(stack: Stack) -> Tensor:
        """1 where weight decay acts: everything but what belongs to a layer marked `is_norm`."""
        norms = {name for name, m in stack.net.named_modules() if getattr(m, "is_norm", False)}
        parts = [
            torch.full((stack.size * shape.numel(),), float(name.rpartition(".")[0] not in norms))
            for name, shape in stack.shapes.items()
        ]
        return torch.cat(parts).to(stack.flat.device)

    def lr(self, step: int) -> float:
        """Learning rate of this step."""
        config, progress = self.config, step / max(self.total, 1)
        if config.schedule == "cosine":
            return self.base_lr * 0.5 * (1 + math.cos(math.pi * progress))
        if config.schedule == "step":
            # 1e-9: a milestone of 1/3 means step 60 of 180, also where 60/180 < 1/3 in floats
            passed = sum(progress >= m - 1e-9 for m in config.milestones)
            return self.base_lr * config.decay**passed
        return self.base_lr

    @torch.no_grad()
    def __call__(self, step: int) -> None:
        """Move the stack's parameters along the gradient it holds."""
        config, flat, gradient, lr = self.config, self.stack.flat, self.stack.grad, self.lr(step)
        if config.weight_decay:
            gradient = gradient + config.weight_decay * self.decayed * flat
        if self.second is None:
            self.first.mul_(config.momentum).add_(gradient)
            flat.sub_(self.first, alpha=lr)
            return
        beta1, beta2 = config.momentum, config.beta2
        self.first.mul_(beta1).add_(gradient, alpha=1 - beta1)
        self.second.mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)
        root = (self.second / (1 - beta2 ** (step + 1))).sqrt_().add_(1e-8)
        flat.addcdiv_(self.first, root, value=-lr / (1 - beta1 ** (step + 1)))
