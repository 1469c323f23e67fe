"""What several models are built of: activations, scaled weights, sums of residual branches."""

from typing import Self

import torch
from torch import Tensor, nn

ACTIVATIONS: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU,
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
    "identity": nn.Identity,
}


def activation(name: str) -> nn.Module:
    """The activation of this name, marked `is_activation` for probes."""
    layer = ACTIVATIONS[name]()
    layer.is_activation = True
    return layer


@torch.no_grad()
def scaled(net: nn.Sequential, factor: float) -> nn.Sequential:
    """A network whose convolutions and linear layers start from `factor` times their weights."""
    if factor != 1:
        for layer in net.modules():
            if isinstance(layer, nn.Linear | nn.Conv2d):
                layer.weight.mul_(factor)
    return net


class Join(nn.Module):
    """The sum at the end of a residual block: join(shortcut, branch).

    `is_join` tells probes where branches end.
    """

    is_join = True

    def forward(self, shortcut: Tensor, branch: Tensor) -> Tensor:
        return branch + shortcut


class SkipInit(Join):
    """A learned factor of the branch that starts at zero (De & Smith 2020, section 4).

    weight: one number for each network that is side by side in the channels.
    """

    def __init__(self, networks: int = 1) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(networks))

    def forward(self, shortcut: Tensor, branch: Tensor) -> Tensor:
        each = branch.shape[1] // self.weight.numel()
        factor = self.weight.repeat_interleave(each).view(-1, *[1] * (branch.dim() - 2))
        return factor * branch + shortcut

    def widened(self, size: int) -> Self:
        """The factors of `size` networks."""
        return type(self)(size)


BRANCHES: dict[str, type[Join]] = {"plain": Join, "skipinit": SkipInit}
