"""Whether a network is tried as a map, and compared with itself alone, before it trains as one."""

from typing import ClassVar

import pytest
import torch
from torch import nn

from bnstudy.engine.mapped import NotMapped, try_map


class Plain(nn.Module):
    """Flattened images through one layer; `h` is what subclasses change."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 3)
        self.register_buffer("mean", torch.zeros(3))

    def h(self, x):
        return x

    def forward(self, x):
        return self.h(self.layer(x.flatten(1)))


class Running(Plain):
    def h(self, x):
        if self.training:
            self.mean.mul_(0.9).add_(0.1 * x.detach().mean(0))
            return x - x.mean(0)
        return x - self.mean


class Rebound(Running):
    """The same, but its running mean is another tensor after every step."""

    def h(self, x):
        if self.training:
            self.mean = 0.9 * self.mean + 0.1 * x.detach().mean(0)
        return x - self.mean


class Shared(Plain):
    """Counts the calls of all networks there are."""

    calls: ClassVar[list[int]] = [0]

    def h(self, x):
        self.calls[0] += 1
        return x * self.calls[0]


class Reads(Plain):
    def h(self, x):
        return x * x.sum().item()


class Branches(Plain):
    def h(self, x):
        return x if x.sum() > 0 else -x


class Draws(Plain):
    def h(self, x):
        return x + torch.randn_like(x)


X, Y = torch.randn(5, 1, 2, 2, generator=torch.Generator().manual_seed(0)), torch.arange(5) % 3


@pytest.mark.parametrize("kind", [Plain, Running, nn.Sequential])
def test_what_does_the_same_as_alone_is_a_map(kind):
    net = kind() if kind is not nn.Sequential else nn.Sequential(nn.Flatten(), nn.Linear(4, 3))
    try_map(net, X, Y)


@pytest.mark.parametrize(
    ("kind", "error", "said"),
    [
        (Rebound, NotMapped, "buffer 'mean' has another value"),
        (Shared, NotMapped, "a state is shared"),
        (Reads, RuntimeError, "item"),
        (Branches, RuntimeError, "control flow"),
        (Draws, RuntimeError, "random"),
    ],
)
def test_what_does_something_else_as_a_map_is_none(kind, error, said):
    with pytest.raises(error, match=said):
        try_map(kind(), X, Y)


def test_trying_leaves_the_network_and_the_random_numbers_as_they_were():
    net = Running()
    before = {name: t.clone() for name, t in net.state_dict().items()}
    state = torch.get_rng_state()
    try_map(net, X, Y)
    assert net.training
    assert all(torch.equal(t, before[name]) for name, t in net.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state)
