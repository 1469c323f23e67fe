"""A residual network for restoration, after EDSR (Lim et al. 2017) and SRResNet."""

from torch import Tensor, nn

from bnstudy.models.dncnn import Restored, conv3, last


class ResidualBlock(nn.Module):
    """x + scaling * [convolution, norm, ReLU, convolution, norm](x); EDSR has no norms."""

    def __init__(self, width: int, scaling: float, norm) -> None:
        super().__init__()
        self.scaling = scaling
        self.branch = nn.Sequential(
            conv3(width, width), norm(width), nn.ReLU(), conv3(width, width), norm(width)
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.scaling * self.branch(x)


class Skipped(nn.Sequential):
    """Layers whose input is added to their output."""

    def forward(self, x: Tensor) -> Tensor:
        return x + super().forward(x)


def edsr(config, shape, num_classes, norm) -> Restored:
    """A convolution, `depth` residual blocks of `width` channels and a long skip, a convolution.

    EDSR upscales at its end; this one keeps the resolution, for any degradation. Input and output
    (N, C, H, W); with `residual` the input is added to the output. EDSR has residual_scaling 0.1 at
    width 256, and 1 at 64.
    """
    channels, width = shape[0], config.width
    blocks = [ResidualBlock(width, config.residual_scaling, norm) for _ in range(config.depth)]
    body = Skipped(*blocks, conv3(width, width))
    net = nn.Sequential(conv3(channels, width), body, last(width, channels))
    return Restored(net, config.residual)
