"""A small U-Net (Ronneberger et al. 2015) for restoration."""

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bnstudy.models.dncnn import Restored, conv3, last


class Joined(nn.Module):
    """Channels of two maps one after the other, those of each of `size` networks together."""

    size = 1

    def widened(self, size: int) -> "Joined":
        """The same for `size` networks side by side."""
        wide = copy.copy(self)
        wide.size = size
        return wide

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        pair = [x.unflatten(1, (self.size, -1)) for x in (first, second)]
        return torch.cat(pair, dim=2).flatten(1, 2)


def stage(inputs: int, outputs: int, norm) -> nn.Sequential:
    """Two [convolution, norm, ReLU]."""
    layers: list[nn.Module] = []
    for channels in (inputs, outputs):
        layers += [conv3(channels, outputs), norm(outputs), nn.ReLU()]
    return nn.Sequential(*layers)


class UNet(nn.Module):
    """`levels` stages, each at half the resolution of the one before, and back; see `unet`."""

    def __init__(self, channels: int, width: int, levels: int, norm) -> None:
        super().__init__()
        widths = [width * 2**i for i in range(levels)]
        self.down = nn.ModuleList(
            stage(inputs, outputs, norm)
            for inputs, outputs in zip([channels, *widths], widths, strict=False)
        )
        self.up = nn.ModuleList(
            stage(widths[i + 1] + widths[i], widths[i], norm) for i in reversed(range(levels - 1))
        )
        self.joined, self.last = Joined(), last(width, channels)

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[2:]
        unit = 2 ** (len(self.down) - 1)
        # whole images are of any size; "reflect" has no deterministic gradient on GPUs
        x = F.pad(x, (0, -width % unit, 0, -height % unit), mode="replicate")
        maps = []
        for i, layers in enumerate(self.down):
            x = layers(F.avg_pool2d(x, 2) if i else x)
            maps.append(x)
        for layers, skip in zip(self.up, reversed(maps[:-1]), strict=True):
            # nearest neighbours, repeated
            x = x.repeat_interleave(2, 2).repeat_interleave(2, 3)
            x = layers(self.joined(x, skip))
        return self.last(x)[..., :height, :width]


def unet(config, shape, num_classes, norm) -> Restored:
    """`depth` levels of `width`, 2 `width`, ... channels, two [3x3 convolution, norm, ReLU] each.

    Average pooling on the way down, nearest neighbours and the level's own map beside it on the way
    up. Input and output (N, C, H, W); with `residual` the input is added to the output.
    """
    return Restored(UNet(shape[0], config.width, config.depth, norm), config.residual)
