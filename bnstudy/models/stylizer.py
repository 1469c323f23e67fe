"""The feed-forward network of style transfer (Johnson et al. 2016, supplement), small."""

from torch import Tensor, nn

from bnstudy.models.mlp import he

ENDS, INNER = 5, 3  # kernels of the first and last convolution, and of those between


def mirrored(inputs: int, outputs: int, kernel: int, stride: int = 1) -> list[nn.Module]:
    """Convolution of the image continued by its mirror, so that a constant image stays constant.

    Without bias: the norm behind it has one.
    """
    layer = nn.Conv2d(inputs, outputs, kernel, stride, bias=False)
    return [nn.ReflectionPad2d(kernel // 2), he(layer)]


class Residual(nn.Module):
    """Two [convolution, norm] with a ReLU between them, added to the input."""

    def __init__(self, width: int, norm) -> None:
        super().__init__()
        self.branch = nn.Sequential(
            *mirrored(width, width, INNER), norm(width), nn.ReLU(),
            *mirrored(width, width, INNER), norm(width),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        return x + self.branch(x)


class Stylizer(nn.Module):
    """Image to image: down to a quarter, residual blocks, up again by nearest neighbours.

    Widths `width`, 2 `width`, 4 `width`. Every convolution but the last is followed by a norm, and
    by a ReLU where it does not end a block; the last has a bias instead. Input and output
    (N, C, H, W), sides of 8 pixels or more. Kernels at the ends are 5 x 5, in the paper 9 x 9, and
    there is no tanh.
    """

    def __init__(self, channels: int, width: int, blocks: int, norm) -> None:
        super().__init__()
        layers: list[nn.Module] = []

        def add(inputs: int, outputs: int, kernel: int, stride: int = 1) -> None:
            layers.extend([*mirrored(inputs, outputs, kernel, stride), norm(outputs), nn.ReLU()])

        add(channels, width, ENDS)
        add(width, 2 * width, INNER, 2)
        add(2 * width, 4 * width, INNER, 2)
        layers.extend(Residual(4 * width, norm) for _ in range(blocks))
        for outputs in (2 * width, width):
            layers.append(nn.Upsample(scale_factor=2.0))
            add(2 * outputs, outputs, INNER)
        last = he(nn.Conv2d(width, channels, ENDS))
        self.layers = nn.Sequential(*layers, nn.ReflectionPad2d(ENDS // 2), last)

    def forward(self, x: Tensor) -> Tensor:
        # sides that four does not divide come back longer
        return self.layers(x)[..., : x.shape[-2], : x.shape[-1]]


def stylizer(config, shape, num_classes, norm) -> Stylizer:
    """The network of a config: `width`, and `depth` residual blocks."""
    return Stylizer(shape[0], config.width, config.depth, norm)
