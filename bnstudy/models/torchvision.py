"""Any classifier of torchvision, with its norm layers replaced by the chosen norm.

Where an architecture has batch norms, those are replaced, and layer norms beside them stay (MaxViT
has both). Where it has layer norms only (ViT, Swin, ConvNeXt), those are. Where it has neither
(AlexNet, SqueezeNet, VGG without BN), there is nothing to choose: only norm=none describes it.
`norm_layers` counts them; docs/torchvision.md is the table of all architectures.
"""

from collections.abc import Iterator
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from bnstudy.errors import UserError, unknown
from bnstudy.norms import LayerNorm, RMSNorm


class Repeat(nn.Module):
    """One grey channel as three equal ones, which torchvision's networks expect."""

    def forward(self, x: Tensor) -> Tensor:
        return x.expand(-1, 3, -1, -1)


class ChannelsLast(nn.Module):
    """A norm in the place of a layer norm over the last axis of (N, *, C): tokens or maps.

    The norm sees (N, C, *), as everywhere: for batch norm a channel's statistics are over examples
    and positions. Layer and RMS norm see each position by itself, (N * positions, C), as in the
    transformers that they come from.
    """

    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self.norm = norm
        self.each = isinstance(norm, LayerNorm | RMSNorm)

    def forward(self, x: Tensor) -> Tensor:
        if self.each:
            return self.norm(x.flatten(0, -2)).unflatten(0, x.shape[:-1])
        return self.norm(x.movedim(-1, 1)).movedim(1, -1)


class MapNorm(ChannelsLast):
    """The same in the place of torchvision's LayerNorm2d, on (N, C, H, W)."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.movedim(1, -1)).movedim(-1, 1)


class NormLayers(NamedTuple):
    """How many norm layers of an architecture the chosen norm replaces, and how many stay."""

    replaced: int
    of: str  # kind of the replaced: "batch", "layer", or "" where there are none
    kept: int  # layer norms beside batch norms


def torchvision(config, shape, num_classes, norm) -> nn.Module:
    """`model.arch` from torchvision's register of classifiers, untrained, with `norm` for its own.

    Input (N, 1 or 3, H, W); logits (N, num_classes). Initial gammas that the architecture sets to
    zero stay zero. Networks with dropout train one seed at a time.

    Raises:
        UserError: unknown architecture (with the nearest), or images of other than 1 or 3 channels.
    """
    if shape[0] not in (1, 3):
        raise UserError(f"model={config.arch} takes 1 or 3 channels, the images have {shape[0]}")
    net = _untrained(config.arch, num_classes)
    for parent, name, child in _replaceable(net):
        if isinstance(child, nn.LayerNorm):
            place = MapNorm if type(child).__name__ == "LayerNorm2d" else ChannelsLast
            setattr(parent, name, place(norm(child.normalized_shape[0])))
            continue
        layer = norm(child.num_features)
        gamma, given = getattr(layer, "weight", None), cast(Tensor, child.weight)
        # on the meta device, where shapes are checked, there are no values to look at
        if gamma is not None and not given.is_meta and not given.any():
            nn.init.zeros_(gamma)
        setattr(parent, name, layer)
    return nn.Sequential(Repeat(), net) if shape[0] == 1 else net


def architectures() -> list[str]:
    """The names of torchvision's classifiers."""
    from torchvision import models

    return models.list_models(models)


def norm_layers(arch: str) -> NormLayers:
    """How many layers the chosen norm replaces in an architecture; the same for every norm.

    Raises:
        UserError: unknown architecture, with the nearest.
    """
    with torch.device("meta"):
        net = _untrained(arch, num_classes=10)
    found = [child for _, _, child in _replaceable(net)]
    layers = sum(isinstance(m, nn.LayerNorm) for m in net.modules())
    batch = bool(found) and not isinstance(found[0], nn.LayerNorm)
    of = "batch" if batch else "layer" if found else ""
    return NormLayers(len(found), of, layers if batch else 0)


def table() -> str:
    """docs/torchvision.md: what the chosen norm replaces in each architecture."""
    lines = [
        "# Norm layers of torchvision's classifiers",
        "",
        "`model=torchvision model.arch=NAME norm=...` replaces the batch norms of an architecture;",
        "where it has none, its layer norms; where it has neither, only `norm=none` is accepted.",
        "Layer norms beside batch norms stay. `norm=layer` in the place of a layer norm normalizes",
        "each position by itself, as the architecture does.",
        "",
        "| architecture | replaced | of kind | layer norms that stay |",
        "|---|---|---|---|",
    ]
    for arch in architectures():
        replaced, of, kept = norm_layers(arch)
        lines.append(f"| {arch} | {replaced} | {of or 'none'} | {kept} |")
    return "\n".join([*lines, ""])


class _Weightless(TorchFunctionMode):
    """Layers made within have no weights, while what computes their sizes (RegNet's) still has."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if function is torch.empty:
            kwargs = {**kwargs, "device": "meta"}
        return function(*args, **kwargs)


def _untrained(arch: str, num_classes: int) -> nn.Module:
    """An architecture as torchvision makes it; on the meta device where that is the default."""
    from torchvision import models

    known = architectures()
    if arch not in known:
        raise unknown("model.arch", arch, known)
    extra = {"aux_logits": False} if arch in ("googlenet", "inception_v3") else {}
    extra |= {"init_weights": True} if extra else {}
    if torch.get_default_device().type != "meta":
        return models.get_model(arch, weights=None, num_classes=num_classes, **extra)
    with torch.device("cpu"), _Weightless():
        extra |= {"init_weights": False} if extra else {}  # by scipy, at length
        return models.get_model(arch, weights=None, num_classes=num_classes, **extra).to("meta")


def _replaceable(net: nn.Module) -> list[tuple[nn.Module, str, nn.Module]]:
    """The layers that the chosen norm replaces: (parent, name, layer)."""

    def of(kind: type[nn.Module]) -> Iterator[tuple[nn.Module, str, nn.Module]]:
        for parent in list(net.modules()):
            for name, child in parent.named_children():
                if isinstance(child, kind):
                    yield parent, name, child

    return list(of(nn.modules.batchnorm._BatchNorm)) or list(of(nn.LayerNorm))
