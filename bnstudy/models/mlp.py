"""Fully connected network: the case where normalization sees one value per channel and example."""

from itertools import pairwise
from math import prod

from torch import Tensor, nn

from bnstudy.models.layers import activation, scaled


def mlp(config, shape, num_classes, norm) -> nn.Sequential:
    """[linear, norm, activation] for each hidden width, then a linear layer.

    The activation is ReLU unless `activation` names another. Input (N, C, H, W), flattened; logits
    (N, num_classes). He initialisation (He et al. 2015, eq. 10) times `init_scale`, biases zero.
    """
    widths = [prod(shape), *config.hidden]
    layers: list[nn.Module] = [nn.Flatten()]
    for inputs, outputs in pairwise(widths):
        layers += [he(nn.Linear(inputs, outputs)), norm(outputs)]
        layers.append(activation(config.activation or "relu"))
    head = he(nn.Linear(widths[-1], num_classes))
    return scaled(nn.Sequential(*layers, head), config.init_scale)


def he(layer: nn.Linear | nn.Conv2d) -> nn.Linear | nn.Conv2d:
    """Weights N(0, 2 / fan_in), bias zero."""
    weight: Tensor = layer.weight
    nn.init.kaiming_normal_(weight, nonlinearity="relu")
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer
