"""DnCNN (Zhang et al. 2017): a plain stack of convolutions that predicts the noise."""

from torch import Tensor, nn

from bnstudy.errors import UserError
from bnstudy.models.mlp import he


class Restored(nn.Module):
    """The input plus what `body` makes of it; without `residual` what it makes of it alone."""

    def __init__(self, body: nn.Module, residual: bool) -> None:
        super().__init__()
        self.body, self.residual = body, residual

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x) if self.residual else self.body(x)


def conv3(inputs: int, outputs: int, stride: int = 1) -> nn.Conv2d:
    """3x3 convolution with bias, which networks without a norm need; He initialisation."""
    layer = nn.Conv2d(inputs, outputs, 3, stride, 1)
    he(layer)
    return layer


def last(inputs: int, outputs: int) -> nn.Conv2d:
    """The last convolution, its weights a tenth of He's: a network begins near its input."""
    layer = conv3(inputs, outputs)
    layer.weight.data.mul_(0.1)
    return layer


def dncnn(config, shape, num_classes, norm) -> Restored:
    """`depth` 3x3 convolutions of `width` channels; a norm and ReLU follow all but first and last.

    The first is followed by ReLU alone. Input and output (N, C, H, W); with `residual` the body
    predicts minus the noise (section III-A). DnCNN-S has depth 17 and width 64.

    Raises:
        UserError: less than 3 layers, of which no norm would follow any.
    """
    if config.depth < 3:
        raise UserError(
            f"model.depth={config.depth}: dncnn has norms between its first and last layer: at "
            "least 3 layers"
        )
    channels, width = shape[0], config.width
    layers: list[nn.Module] = [conv3(channels, width), nn.ReLU()]
    for _ in range(config.depth - 2):
        layers += [conv3(width, width), norm(width), nn.ReLU()]
    return Restored(nn.Sequential(*layers, last(width, channels)), config.residual)
