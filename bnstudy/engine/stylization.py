"""Stylization: the content of an image in the style of another, judged by a fixed network."""

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

from bnstudy.config import TaskConfig
from bnstudy.engine.tasks import Score

Features = Callable[[Tensor], list[Tensor]]
"""Images (n, C, H, W), levels in [0, 1], to feature maps of several stages."""


class Stylization:
    """Images with the content of the input and the style of one image (Johnson et al. 2016).

    Outputs (N, S, C, H, W), levels in [0, 1]; targets (N, S, 2, C, H, W), of which the first is the
    content. loss = content + style_weight * style. Content is the mean squared difference of
    feature maps at one stage, in units of the style image's variance there; style the squared
    distance of Gram matrices (Gatys et al. 2016) in units of the style image's own, a mean over
    stages. The error is the part of the loss that is left: 1 is what returning the input gives.

    Args:
        config: weight of the style.
        features: the fixed network, on the device of the outputs.
        content: the stage that content is compared at.
        style: the style image (C, H, W).
    """

    metrics = measures = ("error", "content", "style")

    def __init__(self, config: TaskConfig, features: Features, content: int, style: Tensor) -> None:
        self.weight, self.features, self.stage = config.style_weight, features, content
        self.image = style
        with torch.no_grad():
            maps = features(style[None])
            self.wanted = [gram(m) for m in maps]
            self.scale = maps[content].var((0, 2, 3)).mean()

    def score(self, output: Tensor, y: Tensor) -> Score:
        """Loss, error, content and style of a batch, of each network."""
        size, source = output.shape[:2], y[:, :, 0]
        found = self.features(output.flatten(0, 1))
        with torch.no_grad():
            given = self.features(source.flatten(0, 1))
            before = self.weight * self._style(given).view(size).mean(0)
        content = (found[self.stage] - given[self.stage]).square().mean((1, 2, 3)) / self.scale
        content, style = content.view(size).mean(0), self._style(found).view(size).mean(0)
        loss = content + self.weight * style
        with torch.no_grad():
            return loss, loss.detach() / before, content.detach(), style.detach()

    def _style(self, maps: list[Tensor]) -> Tensor:
        """The distance of each image from the style, (n,)."""
        each = [
            (gram(own) - wanted).square().sum((1, 2)) / wanted.square().sum()
            for own, wanted in zip(maps, self.wanted, strict=True)
        ]
        return torch.stack(each).mean(0)

    def total(self, pieces: Iterable[tuple[Tensor, Tensor]]) -> Score:
        """Means over images, which come in pieces."""
        found, images = [], []
        for output, y in pieces:
            found.append(torch.stack(self.score(output, y)))
            images.append(len(output))
        weights = torch.tensor(images, device=found[0].device, dtype=found[0].dtype)
        return tuple((torch.stack(found) * weights[:, None, None]).sum(0) / weights.sum())

    def diverged(self, name: str, data: Any) -> float:
        """An error counts as that of the input, which is 1; anything else is not a number."""
        return 1.0 if "error" in name else math.nan


def gram(maps: Tensor) -> Tensor:
    """Mean products of channels over positions: (n, C, H, W) to (n, C, C)."""
    flat = maps.flatten(2)
    return flat @ flat.transpose(1, 2) / flat.shape[2]
