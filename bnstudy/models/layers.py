"""What several models are built of: activations, scaled weights, sums of residual branches."""

import math
from typing import Self

import torch
import torch.nn.functional as F
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
    layer.is_activation = True  # type: ignore[assignment]  # which modules may be given
    return layer


@torch.no_grad()
def scaled(net: nn.Sequential, factor: float) -> nn.Sequential:
    """A network whose convolutions and linear layers start from `factor` times their weights."""
    if factor != 1:
        for layer in net.modules():
            if isinstance(layer, nn.Linear | nn.Conv2d):
                layer.weight.mul_(factor)
    return net


BEHIND_RELU = math.sqrt(2 / (1 - 1 / math.pi))  # 1 / s.d. of a ReLU's output for N(0, 1)
LEAST = 1e-4  # of fan-in times variance, as in the published code


class ScaledConv(nn.Conv2d):
    """A convolution whose weights are standardized and scaled to keep the variance of its input.

    W_hat = g * gain * (W - mean) / sqrt(max(N var_biased, 1e-4)), moments over the N inputs of an
    output channel (Brock et al. 2021a, scaled weight standardization). g is learned per channel and
    starts at 1, the bias at 0. gain: 1 for inputs of mean 0, BEHIND_RELU for a ReLU's outputs.
    """

    def __init__(self, *args, gain: float = 1.0, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self.gain = gain
        self.scale = nn.Parameter(torch.ones(self.out_channels))
        if self.bias is None:  # zeros are drawn from no stream
            self.bias = nn.Parameter(torch.zeros(self.out_channels))

    def standardized(self) -> Tensor:
        """The weights that the convolution uses."""
        var, mean = torch.var_mean(self.weight, [1, 2, 3], correction=0, keepdim=True)
        fan_in = self.weight[0].numel()
        factor = self.gain * torch.rsqrt((fan_in * var).clamp(min=LEAST))
        return (self.weight - mean) * factor * self.scale.view(-1, 1, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(
            x, self.standardized(), self.bias, self.stride, self.padding, 1, self.groups
        )

    def widened(self, size: int) -> Self:
        """`size` networks side by side: moments are of single output channels in any case."""
        inputs, outputs = self.in_channels * size, self.out_channels * size
        return type(self)(
            inputs, outputs, self.kernel_size, self.stride, self.padding,
            groups=self.groups * size, bias=False, gain=self.gain,
        )  # fmt: skip


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
