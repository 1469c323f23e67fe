"""What an output image depends on beside its input, and the loss over the course of training."""

from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor

from bnstudy.data.samplers import generator

PARTS = 20  # of training, in `loss_course`
PATCHES, DRAWS = 32, 8  # of `companions`
LEVELS = 255  # grey levels


def loss_course(view: Any) -> dict[str, Tensor]:
    """Training loss of each twentieth of the steps, a mean: `loss_course/01` to `/20`."""
    parts = view.losses.tensor_split(PARTS, dim=1)
    return {f"loss_course/{i:02d}": part.mean(1) for i, part in enumerate(parts, 1)}


def companions(view: Any) -> dict[str, Tensor]:
    """How much outputs depend on the batch and on the contrast, in grey levels of 255.

    `companion_change`: test patches are put into batches of the training size, normalized as in
    training (batch norm by the batch's statistics), several times with other companions; the
    standard deviation of a pixel over these batches, its root mean square over pixels and patches.
    `contrast_change`: root mean square difference between what whole test photographs give and what
    they give with half their contrast, in evaluation mode.
    """
    with view.stack.training(False):
        return {"companion_change": _companions(view), "contrast_change": _contrast(view)}


def _predict(view: Any, images: Tensor) -> Tensor:
    """Outputs (n, S, C, H, W), in grey levels, for images (n, C, H, W) that all networks see."""
    x = images.to(view.stack.flat.device)[:, None]
    shown = view.stack.predict(x.expand(-1, view.stack.size, *x.shape[2:]))
    return LEVELS * shown.clamp(0, 1)


def _companions(view: Any) -> Tensor:
    size = view.config.train.batch_size
    every = tiles(clean(view.data), view.data.config.patch_size)
    count = max(PATCHES // size, 1) * size
    chosen = torch.linspace(0, len(every) - 1, count).long()
    found = []
    for draw in range(DRAWS):
        order = torch.randperm(count, generator=generator(draw, "companions"))
        with view.batch_statistics(size) if view.has_batch_norm else nullcontext():
            outputs = _predict(view, every[chosen[order]])
        found.append(outputs[order.argsort()])
    return torch.stack(found).var(0).mean((0, 2, 3, 4)).sqrt()


def _contrast(view: Any) -> Tensor:
    found = []
    for image in clean(view.data):
        mean = image.mean((1, 2), keepdim=True)
        change = _predict(view, image[None]) - _predict(view, (mean + 0.5 * (image - mean))[None])
        found.append(change.square().mean((0, 2, 3, 4)))
    return torch.stack(found).mean(0).sqrt()


def clean(photographs: Any) -> list[Tensor]:
    """The test photographs as they are, (C, H, W) in [0, 1]."""
    return [target[0, 0] for _, target in photographs.whole("test")]


def tiles(images: list[Tensor], side: int) -> Tensor:
    """All whole patches of images (C, H, W) side by side, image after image: (n, C, side, side)."""
    found = [i.unfold(1, side, side).unfold(2, side, side).flatten(1, 2) for i in images]
    return torch.cat(found, dim=1).transpose(0, 1)
