"""What a training step keeps in memory for its backward pass."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.func import functional_call


def activation_memory(view: Any) -> dict[str, Tensor]:
    """Bytes that one more example in the batch adds to a training step, for each network.

    `activation_bytes`: what autograd saves for the backward pass, each storage counted once; from
    batches of B and 2 B, so that weights and statistics of channels cancel. `normalized_bytes`: the
    inputs of norm layers (also of norm=none, where nothing happens to them). On a GPU also
    `peak_bytes`: the growth of the most memory that was allocated at once.
    """
    size, stack = view.config.train.batch_size, view.stack
    with stack.training(True), stack.with_buffers({}):
        small, large = (_step(view, n) for n in (size, 2 * size))
    more = {name: (value - small[name]) / size for name, value in large.items()}
    return {n: torch.full((stack.size,), v, dtype=torch.float64) for n, v in more.items()}


def _step(view: Any, size: int) -> dict[str, float]:
    """The bytes of a training step on a batch of so many training examples, for each network."""
    stack, index = view.stack, torch.arange(size) % view.data.size("train")
    columns = index[:, None].expand(-1, stack.size).to(stack.flat.device)
    x, y = view.data.take("train", columns)
    shapes = {name: p.shape for name, p in stack.net.named_parameters()}
    one = shapes == stack.shapes  # under a map autograd runs no hooks: there one is called alone
    cuda = stack.flat.is_cuda
    if cuda:
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
    with _saved() as storages, _normalized(stack.net) as inputs:
        _alone(stack, x[:, 0].clone(), y[:, :1]) if one else stack.gradient(x, y)
    found = {"activation_bytes": sum(storages.values()), "normalized_bytes": sum(inputs)}
    if cuda:
        found["peak_bytes"] = torch.cuda.max_memory_allocated() - before
    return {name: value / (1 if one else stack.size) for name, value in found.items()}


def _alone(stack: Any, x: Tensor, y: Tensor) -> None:
    """Forward and backward pass of the first network of a stack on its own batch."""
    weights = {name: p.clone().requires_grad_() for name, p in stack.parameters(0).items()}
    buffers = {name: b.clone() for name, b in stack.buffers_of(0).items()}
    output = functional_call(stack.net, (weights, buffers), (x,))
    loss = stack.task.score(output[:, None], y)[0].sum()
    torch.autograd.grad(loss, list(weights.values()), allow_unused=True)


@contextmanager
def _saved() -> Iterator[dict[int, int]]:
    """Address and bytes of each storage that autograd saves within the block.

    Saved tensors live until the backward pass, so no two storages have one address.
    """
    storages: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        storages[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        yield storages


@contextmanager
def _normalized(net: torch.nn.Module) -> Iterator[list[int]]:
    """Bytes of each input of a norm layer within the block."""
    found: list[int] = []
    hooks = [
        module.register_forward_pre_hook(lambda _, inputs: found.append(inputs[0].nbytes))
        for module in net.modules()
        if getattr(module, "is_norm", False)
    ]
    try:
        yield found
    finally:
        for hook in hooks:
            hook.remove()
