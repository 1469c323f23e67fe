"""A deep fully connected network, plain or residual: what depth does to signals and gradients."""

import math
from math import prod

from torch import Tensor, nn

from bnstudy.errors import UserError
from bnstudy.models.layers import BRANCHES, Join, activation, scaled

GAINS = {"relu": 2.0}  # He et al. 2015; of the others 1: Xavier, where layers are square


class Residual(nn.Module):
    """join(x, branch(x))."""

    def __init__(self, branch: nn.Sequential, join: Join) -> None:
        super().__init__()
        self.branch, self.join = branch, join

    def forward(self, x: Tensor) -> Tensor:
        return self.join(x, self.branch(x))


def deep(config, shape, num_classes, norm) -> nn.Sequential:
    """`depth` fully connected layers of `width`, each followed by norm and activation; then logits.

    With `residual` every [norm, activation, linear] between the first layer and the last norm is a
    branch, added to what it reads (the order of He et al. 2016b, and of De & Smith 2020). Weights
    N(0, g / fan_in) times `init_scale`, biases zero; g is 2 behind ReLU, else 1 (He and Xavier),
    and 1 for the first layer, whose input no activation has halved. Input (N, C, H, W), flattened;
    logits (N, num_classes).

    Raises:
        UserError: another branch than the plain one in a network that has none.
    """
    if config.branch != "plain" and not config.residual:
        raise UserError(
            f"model.branch={config.branch} is the branch of a residual network: give "
            "model.residual=true, or leave it out"
        )
    width, phi = config.width, config.activation or "relu"
    gain = GAINS.get(phi, 1.0)
    layers: list[nn.Module] = [nn.Flatten(), _linear(prod(shape), width, 1.0)]
    for _ in range(config.depth - 1):
        step = [norm(width), activation(phi), _linear(width, width, gain)]
        if config.residual:
            step = [Residual(nn.Sequential(*step), BRANCHES[config.branch]())]
        layers += step
    layers += [norm(width), activation(phi), _linear(width, num_classes, gain)]
    return scaled(nn.Sequential(*layers), config.init_scale)


def _linear(inputs: int, outputs: int, gain: float) -> nn.Linear:
    """Weights N(0, gain / inputs), bias zero."""
    layer = nn.Linear(inputs, outputs)
    nn.init.normal_(layer.weight, std=math.sqrt(gain / inputs))
    nn.init.zeros_(layer.bias)
    return layer
