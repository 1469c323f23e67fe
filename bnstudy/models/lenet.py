"""LeNet with normalization, as in the batch normalization chapter of Dive into Deep Learning."""

from math import prod

from torch import nn

from bnstudy.errors import UserError
from bnstudy.models.layers import activation, scaled


def lenet(config, shape, num_classes, norm) -> nn.Sequential:
    """Two [convolution 5x5 without padding, norm, sigmoid, average pooling], then 120, 84, classes.

    `activation` names another than the sigmoid. Channels 6, 16 and widths 120, 84, Xavier
    initialisation (Glorot & Bengio 2010, eq. 16) times `init_scale`; every weight layer but the
    last is followed by a norm; with `normalized` convolutions, only those.
    Input (N, C, H, W), logits (N, num_classes).
    Where the image is smaller than 16 pixels a side the kernels are 3x3, and a map that is down to
    one pixel is not pooled: 8x8 digits go 8, 6, 3, 1.

    Raises:
        UserError: the image is smaller than 8 pixels a side.
    """
    channels, *size = shape
    if min(size) < 8:
        raise UserError(f"lenet needs images of at least 8x8 pixels, not {size[0]}x{size[1]}")
    phi = config.activation or "sigmoid"
    kernel = 5 if min(size) >= 16 else 3
    layers: list[nn.Module] = []
    for width in (6, 16):
        layers += [nn.Conv2d(channels, width, kernel), norm(width), activation(phi)]
        channels, size = width, [s - kernel + 1 for s in size]
        if min(size) >= 2:
            layers.append(nn.AvgPool2d(2))
            size = [s // 2 for s in size]
    layers.append(nn.Flatten())
    inputs = channels * prod(size)
    for width in (120, 84):
        layers.append(nn.Linear(inputs, width))
        if config.normalized == "all":
            layers.append(norm(width))
        layers.append(activation(phi))
        inputs = width
    net = nn.Sequential(*layers, nn.Linear(inputs, num_classes))
    for layer in net:
        if isinstance(layer, nn.Linear | nn.Conv2d):
            nn.init.xavier_uniform_(layer.weight)
    return scaled(net, config.init_scale)
