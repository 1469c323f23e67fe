"""Random streams of torch and of layers: seeding them by purpose, and leaving them as they were."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from bnstudy.data.samplers import generator


@contextmanager
def seeded(seed: int, purpose: str, device: torch.device) -> Iterator[None]:
    """torch's global generators as the stream (seed, purpose) within the block, as before after it.

    For layers that draw random numbers from them.

    Args:
        device: that of the network; its generator is seeded beside the CPU's.
    """
    number = generator(seed, purpose).initial_seed()
    with torch.random.fork_rng(devices=devices(device)):
        torch.default_generator.manual_seed(number)
        for place in devices(device):
            with torch.cuda.device(place):
                torch.cuda.manual_seed(number)
        yield


@contextmanager
def undisturbed(net: nn.Module, device: torch.device) -> Iterator[None]:
    """Whatever is drawn within the block, training draws the same after it as without it.

    Covers torch's global generators and every torch.Generator that a layer holds, by itself or in a
    list.
    """
    own = list(generators(net))
    before = [stream.get_state() for stream in own]
    with torch.random.fork_rng(devices=devices(device)):
        try:
            yield
        finally:
            for stream, state in zip(own, before, strict=True):
                stream.set_state(state)


def devices(device: torch.device) -> list[torch.device]:
    """The devices that have a generator beside the CPU's."""
    return [device] if device.type == "cuda" else []


def generators(net: nn.Module) -> Iterator[torch.Generator]:
    """The generators that layers hold, by themselves or in a list."""
    for module in net.modules():
        for value in vars(module).values():
            if isinstance(value, torch.Generator):
                yield value
            elif isinstance(value, list):
                yield from (each for each in value if isinstance(each, torch.Generator))
