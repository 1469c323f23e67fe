"""The training loop. There is one."""

import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from bnstudy.config import Config, TrainConfig
from bnstudy.data.samplers import (
    batches,
    classwise_order,
    epoch_order,
    generator,
    sequential_order,
)
from bnstudy.engine.distributed import Shard
from bnstudy.engine.evaluate import View, evaluate
from bnstudy.engine.optimizer import Optimizer, step_at
from bnstudy.engine.randomness import undisturbed
from bnstudy.engine.snapshot import Snapshot
from bnstudy.engine.stack import Stack

Row = dict[str, Any]
WHOLE = Shard()


def train(
    stack: Stack,
    data: Any,
    configs: Sequence[Config],
    probes: Sequence[Any] = (),
    on_step: Callable[[int, int], None] = lambda step, total: None,
    shard: Shard = WHOLE,
    snapshot: Snapshot | None = None,
) -> Iterator[list[Row]]:
    """Train a stack; yield, after each evaluation, one row of measurements per network.

    The networks' configs differ in the seed, and in numbers that each can have for itself (learning
    rate, weight decay, momentum of statistics, constants of the data). A seed's initial weights are
    already in the stack; its order of examples is drawn from (seed, "order"). Measuring moves no
    random stream: however often a network is evaluated, it ends with the same weights.
    Divergence is data: a network that has diverged goes on; its rows say so (`diverged_at`, below)
    and hold what the task counts it as (chance, for an error).

    Args:
        stack: the networks; its tensors are changed in place.
        data: a Dataset on the stack's device.
        configs: one per network.
        probes: further measurements: objects with `measure(view) -> {name: (S,)}` and `always`
            (after every evaluation, else after the last).
        on_step: called before each optimiser step with (step, total); may raise to stop.
        shard: this process's part of every batch, where several train the stack; only the first
            of them measures and yields.
        snapshot: says the state of this training in `on_step`; where it has a `start`, the training
            begins there and yields the rows from there on.
    """
    config, task = configs[0], stack.task
    n, size, device = data.size("train"), config.train.batch_size, stack.flat.device
    per_epoch = n // size
    total = config.train.total_steps(n)
    update = Optimizer([c.optimizer for c in configs], stack, size, total)
    order, batch = Order(data, configs), training_batches(data, config.train)
    noise = [generator(c.seed, "noise") for c in configs]
    drawing = [m for m in stack.net.modules() if hasattr(m, "streams")]
    for i, module in enumerate(drawing):
        purpose = getattr(module, "purpose", "initial_state")
        purpose = f"{purpose} {i}" if i else purpose
        module.streams = [generator(c.seed, purpose) for c in configs]
    freeze_step = step_at(config.norm.freeze_at, total)
    # in training, and before learning from the batch; loss and metrics; networks; steps
    log = torch.full(
        (2, 1 + len(task.metrics), stack.size, max(total, 1)),
        math.nan,
        dtype=stack.flat.dtype,
        device=device,
    )
    view = View(stack, data, config, tuple(c.seed for c in configs), update)
    every = config.evaluate.steps or per_epoch * config.evaluate.every
    due = {*range(every, total + 1, every), total}
    now = snapshot or Snapshot()
    now.begin(view, order, noise, log)
    if total == 0:
        yield rows(view, configs, probes, log[..., :0], 0)
    with stack.training(True):
        for step in range(now.step, total):
            now.step = step
            on_step(step, total)
            if step == freeze_step:
                for module in stack.net.modules():
                    if hasattr(module, "frozen"):
                        module.frozen = True
            # the whole batch, then this process's part: the noise is the same for any number
            x, y = map(shard.part, batch(next(order).to(device), noise))
            if config.evaluate.online:
                with stack.training(False), undisturbed(stack.net, device):
                    for row, value in zip(log[1], task.score(stack.predict(x), y), strict=True):
                        row[:, step] = value
            score = stack.gradient(x, y)
            shard.average(stack, *score)
            for row, value in zip(log[0], score, strict=True):
                row[:, step] = value
            update(step)
            if step + 1 in due and shard.speaks:
                yield rows(view, configs, probes, log[..., : step + 1], now.since)
                now.since = step + 1


def training_batches(data: Any, config: TrainConfig) -> Callable[..., tuple[Tensor, Tensor]]:
    """(index, noise) -> images and labels of a training batch, with corrupted copies if asked."""
    if config.corruption == "none":
        return partial(data.take, "train")
    others = data.corrupted("train", config.corruption, config.severity)

    def joined(index: Tensor, noise: list[torch.Generator]) -> tuple[Tensor, Tensor]:
        pairs = zip(data.take("train", index, noise), others.take("train", index), strict=True)
        if config.copies == "behind":
            x, y = map(torch.cat, pairs)
        else:
            x, y = (torch.stack(pair, dim=1).flatten(0, 1) for pair in pairs)
        return x, y

    return joined


class Order:
    """Indices of training batches, (B, S): each network draws its own epochs one after another."""

    def __init__(self, data: Any, configs: Sequence[Config]) -> None:
        self.data, self.train = data, configs[0].train
        self.generators = [generator(c.seed, "order") for c in configs]
        self.left: list[Tensor] = [torch.empty(0) for _ in configs]  # of each network's own epoch
        self.epoch: Iterator[Tensor] = iter(())

    def __next__(self) -> Tensor:
        found = next(self.epoch, None)
        if found is None:
            drawn = [
                own if len(own) else self._epoch(i, g)
                for i, (own, g) in enumerate(zip(self.left, self.generators, strict=True))
            ]
            # classes that a seed has fewer examples of may make its epochs of batches shorter
            steps = min(map(len, drawn))
            self.epoch = iter(torch.stack([own[:steps] for own in drawn], dim=-1))
            self.left = [own[steps:] for own in drawn]
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


def diverged_at(losses: Tensor, sound: Tensor) -> list[int | None]:
    """When each network diverged; None where it has not.

    The first step whose loss is not finite. Where every step's loss is, but the network after them
    is not sound: the number of steps.

    Args:
        losses: of training, (S, steps).
        sound: whether weights and loss of evaluation are finite after these steps, (S,).
    """
    bad = ~torch.cat([losses.isfinite(), sound[:, None]], dim=1)
    first = bad.int().argmax(1)
    return [int(f) if b else None for f, b in zip(first, bad.any(1), strict=True)]


def rows(
    view: View, configs: Sequence[Config], probes: Sequence[Any], log: Tensor, since: int
) -> list[Row]:
    """One row per network: progress, the task's loss and metrics since a step, evaluation.

    `train_loss` and `train_error` are means over the training batches since the last row, in
    training mode (for BN with batch statistics) and while the weights move. `online_error` is the
    mean over all batches so far, each predicted in evaluation mode before it was learned from.

    Args:
        log: (2, 1 + metrics, S, steps so far): in training, and before learning from the batch.
        since: the step of the last row.
    """
    config, stack, step = view.config, view.stack, log.shape[-1]
    size, task = config.train.batch_size, stack.task
    with undisturbed(stack.net, stack.flat.device):
        measured = evaluate(view)
        of_training = zip(("loss", *task.metrics), log[0, :, :, since:].mean(-1), strict=True)
        measured |= {f"train_{name}": value for name, value in of_training}
        if config.evaluate.online:
            before = zip(task.metrics, log[1, 1:].mean(-1), strict=True)
            measured |= {f"online_{name}": value for name, value in before}
        view.last, view.measured, view.losses = step == view.update.total, measured, log[0, 0]
        for probe in probes:
            if view.last or probe.always:
                measured |= probe.measure(view)
    columns = {name: values.tolist() for name, values in measured.items()}
    sound = stack.finite().cpu() & measured["test_loss"].isfinite().cpu()
    diverged = diverged_at(log[0, 0].cpu(), sound)
    result = []
    for i, own in enumerate(configs):
        row: Row = {
            "seed": own.seed,
            "step": step,
            "epoch": step / (view.data.size("train") // size),
            "examples": step * size,
            "lr": view.update.lr(max(step - 1, 0), i),
            "diverged_at": diverged[i],
        }
        for name, values in columns.items():
            row[name] = values[i]
            if row["diverged_at"] is not None:
                row[name] = task.diverged(name, view.data)
        result.append(row)
    return result
