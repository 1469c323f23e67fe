"""The training loop. There is one."""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from bnstudy.config import Config
from bnstudy.data.samplers import (
    batches,
    classwise_order,
    epoch_order,
    generator,
    sequential_order,
)
from bnstudy.engine.distributed import Shard
from bnstudy.engine.evaluate import Look, evaluate
from bnstudy.engine.optimizer import Optimizer
from bnstudy.engine.vectorize import Stack, score

Row = dict[str, Any]
WHOLE = Shard()


def train(
    stack: Stack,
    data: Any,
    configs: Sequence[Config],
    probes: Sequence[Any] = (),
    on_step: Callable[[int, int], None] = lambda step, total: None,
    shard: Shard = WHOLE,
) -> Iterator[list[Row]]:
    """Train a stack; yield, after each evaluation, one row of measurements per network.

    The networks' configs differ in the seed and in `capabilities.NUMBERS` at most. A seed's initial
    weights are already in the stack; its order of examples is drawn from (seed, "order").
    Divergence is data: a network whose loss is not finite goes on, counts as chance from that step
    on, and its row says `diverged_at`.

    Args:
        stack: the networks; its tensors are changed in place.
        data: a Dataset on the stack's device.
        configs: one per network.
        probes: further measurements: objects with `measure(look) -> {name: (S,)}` and `always`
            (after every evaluation, else after the last).
        on_step: called before each optimiser step with (step, total); may raise to stop.
        shard: this process's part of every batch, where several train the stack; only the first
            of them measures and yields.
    """
    config = configs[0]
    n, size, device = data.size("train"), config.train.batch_size, stack.flat.device
    per_epoch = n // size
    total = config.train.total_steps(n)
    update = Optimizer([c.optimizer for c in configs], stack, size, total)
    order = Order(data, configs)
    noise = [generator(c.seed, "noise") for c in configs]
    drawing = [m for m in stack.net.modules() if hasattr(m, "streams")]
    for i, module in enumerate(drawing):
        purpose = f"initial_state {i}" if i else "initial_state"
        module.streams = [generator(c.seed, purpose) for c in configs]
    freeze_step = math.ceil(config.norm.freeze_at * total)
    log = torch.full((3, stack.size, max(total, 1)), math.nan, device=device)
    look = Look(stack, data, config, tuple(c.seed for c in configs), update)
    every = config.evaluate.steps or per_epoch * config.evaluate.every
    due = {*range(every, total + 1, every), total}
    since = 0
    if total == 0:
        yield rows(look, configs, probes, log[..., :0], 0)
    with stack.training(True):
        for step in range(total):
            on_step(step, total)
            if step == freeze_step:
                for module in stack.net.modules():
                    if hasattr(module, "frozen"):
                        module.frozen = True
            # the whole batch, then this process's part: the noise is the same for any number
            x, y = map(shard.part, data.take("train", next(order).to(device), noise))
            if config.evaluate.online:
                with stack.training(False):
                    log[2, :, step] = score(stack.predict(x), y)[1]
            loss, wrong = stack.gradient(x, y)
            shard.average(stack, loss, wrong)
            log[0, :, step], log[1, :, step] = loss, wrong
            update(step)
            if step + 1 in due and shard.speaks:
                yield rows(look, configs, probes, log[..., : step + 1], since)
                since = step + 1


class Order:
    """Indices of training batches, (B, S): each network draws its own epochs one after another."""

    def __init__(self, data: Any, configs: Sequence[Config]) -> None:
        self.data, self.train = data, configs[0].train
        self.generators = [generator(c.seed, "order") for c in configs]
        self.epoch: Iterator[Tensor] = iter(())

    def __next__(self) -> Tensor:
        found = next(self.epoch, None)
        if found is None:
            drawn = [self._epoch(i, g) for i, g in enumerate(self.generators)]
            self.epoch = iter(torch.stack(drawn, dim=-1))
            found = next(self.epoch)
        return found

    def _epoch(self, network: int, stream: torch.Generator) -> Tensor:
        """(steps, B)"""
        n, size, train = self.data.size("train"), self.train.batch_size, self.train
        if not (train.classes_per_batch or train.classes_per_task):
            return batches(epoch_order(n, stream), size)
        labels = self.data.labels("train", network).cpu()
        if train.classes_per_batch:
            order = classwise_order(labels, size, train.classes_per_batch, stream)
        else:
            order = sequential_order(labels, train.classes_per_task, stream)
        return batches(order, size)


def diverged_at(losses: Tensor) -> list[int | None]:
    """For each network the first step with a loss that is not finite; losses (S, steps)."""
    bad = ~losses.isfinite()
    first = bad.int().argmax(1)
    return [int(f) if b else None for f, b in zip(first, bad.any(1), strict=True)]


def rows(
    look: Look, configs: Sequence[Config], probes: Sequence[Any], log: Tensor, since: int
) -> list[Row]:
    """One row per network: progress, the loss and error of training since a step, evaluation.

    `train_loss` and `train_error` are means over the training batches since the last row, in
    training mode (for BN with batch statistics) and while the weights move. `online_error` is the
    mean over all batches so far, each predicted in evaluation mode before it was learned from.

    Args:
        log: (3, S, steps so far): loss, error, error before learning.
        since: the step of the last row.
    """
    config, step = look.config, log.shape[-1]
    size = config.train.batch_size
    measured = evaluate(look)
    measured["train_loss"], measured["train_error"] = log[:2, :, since:].mean(-1)
    if config.evaluate.online:
        measured["online_error"] = log[2].mean(-1)
    look.last, look.measured = step == look.update.total, measured
    for probe in probes:
        if look.last or probe.always:
            measured |= probe.measure(look)
    columns = {name: values.tolist() for name, values in measured.items()}
    diverged = diverged_at(log[0]) if step else [None] * len(configs)
    chance = 1 - 1 / look.data.num_classes
    result = []
    for i, own in enumerate(configs):
        row: Row = {
            "seed": own.seed,
            "step": step,
            "epoch": step / (look.data.size("train") // size),
            "examples": step * size,
            "lr": look.update.lr(max(step - 1, 0), i),
            "diverged_at": diverged[i],
        }
        for name, values in columns.items():
            row[name] = values[i]
            if row["diverged_at"] is not None:
                row[name] = chance if "error" in name else math.nan
        result.append(row)
    return result
