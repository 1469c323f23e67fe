"""Networks by name: `build(config, shape, num_classes, norm) -> nn.Module`.

A model takes a factory of norms, calls `norm(channels)` after each weight layer, and knows nothing
of training, studies or logging. Its weights are drawn from torch's global generator in an order
that does not depend on the norm, so the arms of a comparison start from the same weights.
"""

from collections.abc import Callable

from torch import nn

from bnstudy import entry
from bnstudy.config import ModelConfig
from bnstudy.errors import unknown
from bnstudy.models.deep import deep
from bnstudy.models.dncnn import dncnn
from bnstudy.models.edsr import edsr
from bnstudy.models.lenet import lenet
from bnstudy.models.mlp import mlp
from bnstudy.models.recurrent import recurrent
from bnstudy.models.resnet import resnet
from bnstudy.models.stylizer import stylizer
from bnstudy.models.torchvision import torchvision
from bnstudy.models.transformer import transformer
from bnstudy.models.unet import unet
from bnstudy.models.vgg import vgg

NormFactory = Callable[[int], nn.Module]
Builder = Callable[[ModelConfig, tuple[int, ...], int, NormFactory], nn.Module]


def custom(
    config: ModelConfig, shape: tuple[int, ...], num_classes: int, norm: NormFactory
) -> nn.Module:
    """The user's own network: `model.entry=package.module:build` with this same signature."""
    net = entry.call(config.entry, "model.entry", config, shape, num_classes, norm)
    if not isinstance(net, nn.Module):
        raise entry.returned(config.entry, "model.entry", net, "it must return an nn.Module")
    return net


MODELS: dict[str, Builder] = {
    "mlp": mlp,
    "lenet": lenet,
    "resnet": resnet,
    "vgg": vgg,
    "deep": deep,
    "recurrent": recurrent,
    "torchvision": torchvision,
    "dncnn": dncnn,
    "edsr": edsr,
    "unet": unet,
    "stylizer": stylizer,
    "transformer": transformer,
    "custom": custom,
}


def build(
    config: ModelConfig, shape: tuple[int, ...], num_classes: int, norm: NormFactory
) -> nn.Module:
    """The network that a config describes.

    Args:
        config: name and sizes.
        shape: of one example, (C, H, W).
        num_classes: width of the output.
        norm: channels -> norm layer.

    Raises:
        UserError: unknown name, or sizes that the model does not have.
    """
    if config.name not in MODELS:
        raise unknown("model", config.name, MODELS)
    return MODELS[config.name](config, shape, num_classes, norm)
