"""What normalization costs in time, inside a network, on this machine as it is now.

Clocks of shared machines drift by more than a norm costs. So nothing is compared across runs: each
network is timed in turn with its own copy from which the norm layers are taken out, and what a run
reports is the median ratio of such neighbours in time. On a CPU a second is one of processor time,
which passes only while this process computes: others on the machine delay it and do not enter.
"""

import copy
import math
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from bnstudy.norms import batch_norms
from bnstudy.normtools.fold import fold

ROUNDS = 9  # that are timed; an odd number, so that a median is one of them
WARM = 2  # rounds before them: allocations, choices of kernels


def step_time(view: Any) -> dict[str, Tensor]:
    """Time of a training step and of prediction, for each network of the stack by itself, eager.

    A step is forward, loss and backward on one batch of the training size; prediction is a forward
    in evaluation mode. `step_seconds`, `predict_seconds`: medians over nine rounds; `step_ratio`,
    `predict_ratio`: median ratio to the same network without its norm layers, timed in the same
    rounds; `folded_ratio`: the same of the network with its batch norms folded into the layers
    before them, where there are such. `normalized_channels`: of all norm layers together.
    """
    each = [_of_one(view, i) for i in range(view.stack.size)]
    values = {name: [own[name] for own in each] for name in each[0]}
    return {name: torch.tensor(own, dtype=torch.float64) for name, own in values.items()}


def _of_one(view: Any, index: int) -> dict[str, float]:
    """The times of one network."""
    stack, size = view.stack, view.config.train.batch_size
    rows = (torch.arange(size) % view.data.size("train"))[:, None].expand(-1, stack.size)
    x, y = view.data.take("train", rows.to(stack.flat.device))
    x, y = x[:, index].contiguous(), y[:, index : index + 1]
    net = stack.alone(index)
    layers = [m for m in net.modules() if getattr(m, "is_norm", False)]
    bare = without_norms(net)
    step = {"own": _step(net, stack.task, x, y), "bare": _step(bare, stack.task, x, y)}
    # where a GPU computes, the processor only waits
    clock = time.perf_counter if x.is_cuda else time.process_time
    found = medians(interleaved(step, clock), "step")
    predict = {"own": _predict(net, x), "bare": _predict(bare, x)}
    if (folded := _folded(net, x)) is not None:
        predict["folded"] = _predict(folded, x)
    found |= medians(interleaved(predict, clock), "predict")
    channels = sum(getattr(layer, "num_features", math.nan) for layer in layers)
    return {**found, "normalized_channels": float(channels)}


def _folded(net: nn.Module, x: Tensor) -> nn.Module | None:
    """The network with its batch norms folded away; None where any norm layer would stay."""
    if not batch_norms(net):
        return None
    try:
        found = fold(net.eval(), x)
    except ValueError:  # torch.fx cannot trace it
        return None
    return None if found.refused else found.model


def without_norms(net: nn.Module) -> nn.Module:
    """A copy of a network whose norm layers do nothing."""
    bare = copy.deepcopy(net)
    for name, module in net.named_modules():
        if getattr(module, "is_norm", False):
            parent, _, last = name.rpartition(".")
            setattr(bare.get_submodule(parent), last, nn.Identity())
    return bare


def _step(net: nn.Module, task: Any, x: Tensor, y: Tensor) -> Callable[[], None]:
    """Forward, loss and backward in training mode."""
    leaves = list(net.parameters())

    def call() -> None:
        net.train()
        loss = task.score(net(x)[:, None], y)[0].sum()
        torch.autograd.grad(loss, leaves, allow_unused=True)
        _wait(x)

    return call


def _predict(net: nn.Module, x: Tensor) -> Callable[[], None]:
    """A forward in evaluation mode."""

    def call() -> None:
        net.eval()
        with torch.no_grad():
            net(x)
        _wait(x)

    return call


def interleaved(
    ways: dict[str, Callable[[], None]], clock: Callable[[], float], rounds: int = ROUNDS
) -> dict[str, Tensor]:
    """Seconds of each way in each round, (rounds,); all ways in every round, each first in turn."""
    found: dict[str, list[float]] = {name: [] for name in ways}
    names = list(ways)
    for i in range(WARM + rounds):
        start = i % len(names)
        for name in names[start:] + names[:start]:
            before = clock()
            ways[name]()
            if i >= WARM:
                found[name].append(clock() - before)
    return {name: torch.tensor(values, dtype=torch.float64) for name, values in found.items()}


def _wait(x: Tensor) -> None:
    """Until a GPU has done what it was given."""
    if x.is_cuda:
        torch.cuda.synchronize()


def medians(seconds: dict[str, Tensor], what: str) -> dict[str, float]:
    """Median seconds of the network's own way, and median ratios to the bare one's."""
    bare = seconds["bare"]
    found = {f"{what}_seconds": float(seconds["own"].median())}
    found[f"{what}_ratio"] = float((seconds["own"] / bare).median())
    if "folded" in seconds:
        found["folded_ratio"] = float((seconds["folded"] / bare).median())
    return found
