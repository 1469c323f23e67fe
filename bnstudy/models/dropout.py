"""Dropout whose masks are a seed's own, however many networks train side by side."""

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn


class Dropout(nn.Module):
    """In training each value is zeroed with probability p, the others divided by 1 - p.

    Srivastava et al. 2014, in the form that leaves evaluation alone. Input (N, S * C, *) of S
    networks side by side, (N, C, *) of one; masks are drawn from `streams`, one torch.Generator on
    the CPU per network, else from the global generator.

    >>> Dropout(0.5).eval()(torch.ones(1, 3))
    tensor([[1., 1., 1.]])
    """

    purpose = "dropout"  # of its streams

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p, self.size = p, 1
        self.streams: list[torch.Generator] | None = None

    def widened(self, size: int) -> "Dropout":
        """The same for `size` networks side by side."""
        wide = copy.copy(self)
        wide.size = size
        return wide

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return x
        n, channels, *rest = x.shape
        shape = (n, channels // self.size, *rest)
        streams: Sequence[torch.Generator | None] = self.streams or [None] * self.size
        drawn = torch.cat([torch.rand(shape, generator=stream) for stream in streams], dim=1)
        kept = (drawn >= self.p).to(x.device, x.dtype)
        return x * kept / (1 - self.p)

    def extra_repr(self) -> str:
        return f"p={self.p:g}"


def dropout(p: float) -> list[nn.Module]:
    """The layer, as a list for a sequence: none where nothing is dropped."""
    return [Dropout(p)] if p else []
