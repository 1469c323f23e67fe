"""The feed-forward network of style transfer (Johnson et al. 2016, supplement), small."""

import torch
from torch import Tensor, nn

from bnstudy.models.mlp import he

ENDS, INNER = 5, 3  # kernels of the first and last convolution, and of those between


class Mirror(nn.Module):
    """Maps continued by their mirror, so that none have a border.

    As nn.ReflectionPad2d, whose gradient is not deterministic on GPUs.
    """

    def __init__(self, pixels: int) -> None:
        super().__init__()
        self.pixels = pixels

    def forward(self, x: Tensor) -> Tensor:
        for dim in (2, 3):
            n, p = x.shape[dim], self.pixels
            ends = x.narrow(dim, 1, p), x.narrow(dim, n - 1 - p, p)
            x = torch.cat([ends[0].flip(dim), x, ends[1].flip(dim)], dim)
        return x


def conv(inputs: int, outputs: int, kernel: int, stride: int = 1) -> nn.Sequential:
    """Convolution of mirrored maps, with the bias that networks without a norm need."""
    layer = nn.Conv2d(inputs, outputs, kernel, stride)
    return nn.Sequential(Mirror(kernel // 2), he(layer))


class Residual(nn.Module):
    """Two [convolution, norm] with a ReLU between them, added to the input."""

    def __init__(self, width: int, norm) -> None:
        super().__init__()
        self.branch = nn.Sequential(
            conv(width, width, INNER), norm(width), nn.ReLU(), conv(width, width, INNER),
            norm(width),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        return x + self.branch(x)


class Stylizer(nn.Module):
    """Image to image: down to a quarter, residual blocks, up again by nearest neighbours.

    Widths `width`, 2 `width`, 4 `width`. A norm follows every convolution but the last, and a ReLU
    every norm but those that end a block; a sigmoid is last. Input and output (N, C, H, W), levels
    in [0, 1]. With instance norm the output does not depend on the input's contrast and brightness.
    Kernels at the ends are 5 x 5, in the paper 9 x 9.
    """

    def __init__(self, channels: int, width: int, blocks: int, norm) -> None:
        super().__init__()
        layers: list[nn.Module] = [conv(channels, width, ENDS), norm(width), nn.ReLU()]
        for inputs in (width, 2 * width):
            layers += [conv(inputs, 2 * inputs, INNER, 2), norm(2 * inputs), nn.ReLU()]
        layers += [Residual(4 * width, norm) for _ in range(blocks)]
        for outputs in (2 * width, width):
            layers += [nn.Upsample(scale_factor=2.0), conv(2 * outputs, outputs, INNER)]
            layers += [norm(outputs), nn.ReLU()]
        self.layers = nn.Sequential(*layers, conv(width, channels, ENDS), nn.Sigmoid())

    def forward(self, x: Tensor) -> Tensor:
        # sides that four does not divide come back longer
        return self.layers(x)[..., : x.shape[-2], : x.shape[-1]]


def stylizer(config, shape, num_classes, norm) -> Stylizer:
    """The network of a config: `width`, and `depth` residual blocks."""
    return Stylizer(shape[0], config.width, config.depth, norm)
