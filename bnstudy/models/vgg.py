"""A plain convolutional network in the manner of VGG (Simonyan & Zisserman 2015)."""

from math import prod

from torch import nn

from bnstudy.models.dncnn import conv3
from bnstudy.models.mlp import he

STAGE = 2  # convolutions between two poolings, as in configurations B and D's first stages
WIDEST = 8  # times the first width, as 64 to 512 channels


def vgg(config, shape, num_classes, norm) -> nn.Sequential:
    """`depth` times [3x3 convolution, norm, ReLU], then one linear layer.

    After every second convolution 2x2 max pooling, while the map has two pixels a side, and twice
    the channels, from `width` up to 8 `width`. Convolutions have biases, which networks without a
    norm need. Input (N, C, H, W), logits (N, num_classes). He initialisation.
    """
    channels, *size = shape
    width = config.width
    layers: list[nn.Module] = []
    for index in range(config.depth):
        layers += [conv3(channels, width), norm(width), nn.ReLU()]
        channels = width
        if index % STAGE == STAGE - 1:
            width = min(2 * width, WIDEST * config.width)
            if min(size) >= 2:
                layers.append(nn.MaxPool2d(2))
                size = [side // 2 for side in size]
    return nn.Sequential(*layers, nn.Flatten(), he(nn.Linear(channels * prod(size), num_classes)))
