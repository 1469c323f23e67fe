"""Feature maps of a fixed network, with which images are compared: random filters, or VGG-16's."""

import hashlib
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from bnstudy.errors import UserError
from bnstudy.models.mlp import he

SEED = 0  # of the random filters
WIDTHS = (16, 32, 64)  # of the random network, a stage each
CONTENT = 1  # the stage that content is compared at
# the last ReLU before each pooling, as in Johnson et al. 2016: relu1_2, 2_2, 3_3, 4_3
VGG_STAGES = (3, 8, 15, 22)
VGG_MEAN, VGG_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class Features(nn.Module):
    """Images (N, C, H, W) with values in [0, 1] to a list of feature maps, one for each stage.

    Fixed: in evaluation mode, without gradients of its own weights. `content` is the place in the
    list of the maps that content is compared at.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, stages: list[nn.Module], content: int, mean: Tensor, std: Tensor) -> None:
        super().__init__()
        self.stages, self.content = nn.ModuleList(stages), content
        self.register_buffer("mean", mean.view(-1, 1, 1))
        self.register_buffer("std", std.view(-1, 1, 1))
        self.requires_grad_(False).eval()

    def forward(self, x: Tensor) -> list[Tensor]:
        # VGG's three means make three channels of one
        x = (x - self.mean) / self.std
        found = []
        for stage in self.stages:
            x = stage(x)
            found.append(x)
        return found


def random_features(channels: int) -> Features:
    """Three stages of random 3x3 filters, ReLU; average pooling between them.

    He initialisation from a fixed seed, so it is the same network for every run. Gram matrices of
    random filters describe textures nearly as well as those of trained ones (Ustyuzhaninov et al.
    2016, arXiv 1606.00021; He, Wang and Hopcroft 2016).
    """
    stages: list[nn.Module] = []
    inputs = channels
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        for i, outputs in enumerate(WIDTHS):
            pooling = [nn.AvgPool2d(2)] if i else []
            layer = he(nn.Conv2d(inputs, outputs, 3, padding=1, padding_mode="reflect"))
            stages.append(nn.Sequential(*pooling, layer, nn.ReLU()))
            inputs = outputs
    return Features(stages, CONTENT, torch.full((channels,), 0.5), torch.full((channels,), 0.25))


def vgg_path() -> Path:
    """Where torchvision keeps the weights of its VGG-16, downloaded or not."""
    from torchvision.models import VGG16_Weights

    name = VGG16_Weights.IMAGENET1K_V1.url.rpartition("/")[2]
    return Path(torch.hub.get_dir()) / "checkpoints" / name


def vgg_fingerprint() -> str:
    """The hash of VGG-16's weights. Raises UserError where they are not on the disk."""
    path = vgg_path()
    if not path.is_file():
        raise UserError(
            f"task.features=vgg16 reads torchvision's weights from {path}, and they are not there; "
            "they are never downloaded unasked. Give task.features=random, or download them: "
            "python -c 'from torchvision.models import vgg16; vgg16(weights=\"IMAGENET1K_V1\")'"
        )
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]


def vgg_features() -> Features:
    """VGG-16's four stages (Simonyan & Zisserman 2015), trained on ImageNet; greys become colors.

    Raises UserError where its weights are not on the disk.
    """
    from torchvision.models import vgg16

    vgg_fingerprint()
    with torch.device("meta"):
        net = vgg16()
    net.load_state_dict(torch.load(vgg_path(), weights_only=True), assign=True)
    stages, start = [], 0
    for end in VGG_STAGES:
        stages.append(net.features[start : end + 1])
        start = end + 1
    return Features(stages, CONTENT, torch.tensor(VGG_MEAN), torch.tensor(VGG_STD))


FEATURES: dict[str, Callable[[int], Features]] = {
    "random": random_features,
    "vgg16": lambda channels: vgg_features(),
}
