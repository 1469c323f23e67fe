"""The small residual network of the CIFAR experiments (He et al. 2016, section 4.2)."""

from functools import partial

from torch import Tensor, nn

from bnstudy.errors import UserError
from bnstudy.models.dropout import dropout
from bnstudy.models.layers import BEHIND_RELU, BRANCHES, ScaledConv, scaled
from bnstudy.models.mlp import he


def conv(inputs: int, outputs: int, kernel: int, stride: int = 1) -> nn.Conv2d:
    """Convolution without bias: the norm behind it has one."""
    layer = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False)
    he(layer)
    return layer


def scaled_conv(
    inputs: int, outputs: int, kernel: int, stride: int = 1, gain: float = BEHIND_RELU
) -> nn.Conv2d:
    """Convolution of scaled weights, with a bias; the same draws as `conv`."""
    layer = ScaledConv(inputs, outputs, kernel, stride, kernel // 2, bias=False, gain=gain)
    he(layer)
    return layer


class Block(nn.Module):
    """Two [3x3 convolution, norm], the shortcut added before the last ReLU.

    Where width or resolution change, the shortcut is a 1x1 convolution with a norm. `branch` is a
    key of BRANCHES: how the two are added. Dropout comes between the convolutions (Zagoruyko &
    Komodakis 2016, section 2.4). `conv` makes the convolutions.
    """

    def __init__(
        self, inputs: int, outputs: int, stride: int, norm, conv, branch: str, drop: float
    ) -> None:
        super().__init__()
        self.conv1, self.norm1 = conv(inputs, outputs, 3, stride), norm(outputs)
        self.conv2, self.norm2 = conv(outputs, outputs, 3), norm(outputs)
        self.shortcut = (
            nn.Sequential(conv(inputs, outputs, 1, stride), norm(outputs))
            if stride > 1 or inputs != outputs
            else nn.Identity()
        )
        self.dropout = nn.Sequential(*dropout(drop))
        self.join = BRANCHES[branch]()

    def forward(self, x: Tensor) -> Tensor:
        y = self.dropout(self.norm1(self.conv1(x)).relu())
        y = self.norm2(self.conv2(y))
        return self.join(self.shortcut(x), y).relu()


def resnet(config, shape, num_classes, norm) -> nn.Sequential:
    """6n + 2 layers: a 3x3 convolution, three stages of n blocks, global average pooling, linear.

    Widths `width`, 2 `width`, 4 `width`; the second and third stage halve the resolution. Input
    (N, C, H, W), logits (N, num_classes). He initialisation times `init_scale`; gamma of all norms
    starts at one. With `branch` skipinit each block's branch has a learned factor that starts at
    zero. With `scaled_weights` all convolutions standardize and scale their weights; with skipinit
    and without a norm that is a normalizer-free network (Brock et al. 2021), simplified: branches
    start at zero, so no variance has to be foreseen (its alpha and beta).

    Raises:
        UserError: the depth is not 6n + 2.
    """
    blocks, rest = divmod(config.depth - 2, 6)
    if rest or not blocks:
        near = [6 * max(blocks, 1) + 2, 6 * max(blocks, 1) + 8]
        raise UserError(
            f"model.depth={config.depth}: a resnet has 6n + 2 layers; nearest: {near[0]}, {near[1]}"
        )
    width, first, inner = config.width, conv, conv
    if config.scaled_weights:
        first, inner = partial(scaled_conv, gain=1.0), scaled_conv
    layers: list[nn.Module] = [first(shape[0], width, 3), norm(width), nn.ReLU()]
    inputs = width
    for stage in range(3):
        outputs = width * 2**stage
        for block in range(blocks):
            stride = 2 if stage and not block else 1
            layers.append(
                Block(inputs, outputs, stride, norm, inner, config.branch, config.dropout)
            )
            inputs = outputs
    head = he(nn.Linear(inputs, num_classes))
    net = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), head)
    return scaled(net, config.init_scale)
