"""The state of a training between two steps: what it goes on from, bit for bit."""

import copy
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from bnstudy.engine.optimizer import Optimizer
from bnstudy.engine.randomness import devices, generators

if TYPE_CHECKING:
    from bnstudy.engine.evaluate import View
    from bnstudy.engine.train import Order

State = dict[str, Any]  # tensors, numbers, texts, lists and dicts of them: loading runs no code
PLAIN = {bool, int, float, str, type(None)}  # what a layer may keep in an attribute, beside tensors


class Snapshot:
    """Handed to `train`, it can say the state of that training whenever `on_step` is called.

    All that later steps depend on: weights, buffers, the optimiser's averages, what is left of each
    network's epoch, every random stream, the log of losses, what probes remember, and numbers,
    texts and tensors in attributes of layers (a norm that is frozen, a counter). A layer of a
    person's own that keeps state elsewhere (in a list, in Python's or numpy's random numbers) does
    not go on bit for bit.

    Attributes:
        start: the state to begin from; None begins at step 0.
        step: what `on_step` is told.
        since: the step of the last row.
    """

    def __init__(self, start: State | None = None) -> None:
        self.start, self.step, self.since = start, 0, 0

    def begin(
        self, view: "View", order: "Order", noise: list[torch.Generator], log: Tensor
    ) -> None:
        """Take the parts of a training, all made for step 0, and bring them to `start`.

        Args:
            view: networks, optimiser and what probes remember.
            order: of the examples.
            noise: the streams of the data's noise.
            log: (..., steps), filled up to the present one.
        """
        self.view, self.order, self.log = view, order, log
        self.streams = [*noise, *order.generators, *generators(view.stack.net)]
        if self.start is not None:
            self._restore(self.start)

    def state(self) -> State:
        """A copy of the present state."""
        stack, order = self.view.stack, self.order
        order.epoch, rest = _twice(order.epoch)
        return {
            "step": self.step,
            "since": self.since,
            "flat": stack.flat.clone(),
            "buffers": {name: b.clone() for name, b in stack.buffers.items()},
            "optimizer": [t.clone() for t in _averages(self.view.update)],
            "epoch": rest,
            "left": [own.clone() for own in order.left],
            "streams": [stream.get_state() for stream in self.streams],
            "torch": [torch.get_rng_state(), *map(torch.cuda.get_rng_state, self._devices())],
            "log": self.log[..., : self.step].clone(),
            "memory": copy.deepcopy(self.view.memory),
            "attributes": {name: dict(_attributes(m)) for name, m in stack.net.named_modules()},
        }

    def _restore(self, state: State) -> None:
        stack = self.view.stack
        self.step, self.since = state["step"], state["since"]
        stack.flat.copy_(state["flat"])
        for name, value in state["buffers"].items():
            stack.buffers[name].copy_(value)
        for own, value in zip(_averages(self.view.update), state["optimizer"], strict=True):
            own.copy_(value)
        self.order.epoch = iter(state["epoch"].cpu())
        self.order.left = [own.cpu() for own in state["left"]]
        for stream, value in zip(self.streams, state["streams"], strict=True):
            stream.set_state(value.cpu())
        here, *there = state["torch"]
        torch.set_rng_state(here.cpu())
        for device, value in zip(self._devices(), there, strict=True):
            torch.cuda.set_rng_state(value.cpu(), device)
        self.log[..., : self.step] = state["log"]
        self.view.memory.update(state["memory"])
        modules = dict(stack.net.named_modules())
        for name, values in state["attributes"].items():
            for key, value in values.items():
                setattr(modules[name], key, value)

    def _devices(self) -> list[torch.device]:
        return devices(self.view.stack.flat.device)


def _averages(update: Optimizer) -> list[Tensor]:
    """What an optimiser keeps from step to step, of the shape of the weights or of statistics."""
    kept = [t for t in (update.first, update.second, update.average) if t is not None]
    return [*kept, *update.averaged_statistics.values()]


def _twice(epoch: Iterator[Tensor]) -> tuple[Iterator[Tensor], Tensor]:
    """The batches that are left of an epoch, once more to be drawn and as one tensor."""
    rest = list(epoch)
    return iter(rest), torch.stack(rest) if rest else torch.empty(0)


def _attributes(module: nn.Module) -> Iterator[tuple[str, Any]]:
    for name, value in vars(module).items():
        if isinstance(value, Tensor):
            yield name, value.detach().clone()
        elif type(value) in PLAIN:  # not a subclass, whose code loading would have to run
            yield name, value
