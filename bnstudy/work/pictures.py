"""Images that trained networks make of test photographs, side by side; which ones is a rule."""

from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from bnstudy.config import Config
from bnstudy.data.samplers import generator
from bnstudy.engine.tasks import Task
from bnstudy.norms import batch_norms, evaluation_mode
from bnstudy.work.build import build
from bnstudy.work.tasks import task

LEVELS = 255  # grey levels
CROP = 64  # pixels: side of the crop whose companions are exchanged
TIMES = 10  # differences are drawn so many times as large
EXCHANGED = (
    f"Below: the middle {CROP} x {CROP} pixels of the first test photograph in two batches of the "
    "training size, normalized as in training, that differ in the other images; the difference is "
    f"drawn {TIMES} times as large, with its root mean square in grey levels of 255."
)


class Shown(NamedTuple):
    """An image (H, W) or (H, W, 3) with values in [0, 1], its name, and what stands below it."""

    image: np.ndarray
    title: str
    note: str = ""


class Arm(NamedTuple):
    """A trained network and what it is called."""

    name: str
    config: Config
    net: nn.Module


def arm(name: str, config: Config, weights: dict[str, Tensor], data: Any) -> Arm:
    """The network of a run with its final weights, in evaluation mode."""
    net = build(config, tuple(data.shape), data.num_classes)
    net.load_state_dict(weights)
    return Arm(name, config, net.eval())


@torch.no_grad()
def outputs(arms: Sequence[Arm], data: Any) -> tuple[list[Shown], str]:
    """What each arm makes of one test photograph, beside its input and what it should be.

    Which photograph: that of the median loss by the first arm, of an even number the lower one.

    Returns:
        Pictures, and a sentence that says which photograph and why.
    """
    config, judge = arms[0].config, task(arms[0].config, data.shape[0])
    pieces = list(data.whole("test"))
    losses = [_score(judge, arms[0].net(x), y)["loss"] for x, y in pieces]
    middle = sorted(range(len(losses)), key=losses.__getitem__)[(len(losses) - 1) // 2]
    x, y = pieces[middle]
    found = [Shown(array(x[0]), "input", _note(judge, x, y))]
    if hasattr(judge, "image"):
        found.append(Shown(array(judge.image), "style"))
    elif config.data.degradation != "none":
        found.append(Shown(array(y[0, 0]), "truth"))
    for own in arms:
        made = own.net(x)
        found.append(Shown(array(made[0]), own.name, _note(judge, made, y)))
    chosen = (
        f"Test photograph '{data.names['test'][middle]}': of {len(losses)} the one with the median "
        f"loss by the first network ({arms[0].name}), of an even number the lower."
    )
    return found, chosen


@torch.no_grad()
def companions(own: Arm, data: Any) -> list[Shown]:
    """One crop in two batches that differ in the other images, by the statistics of the batch.

    The crop is the middle of the first test photograph that has room for it, its companions are
    drawn from the others' crops. At last the difference of both, many times as large.
    """
    size = own.config.train.batch_size
    crops = [c for c in map(_middle, data.clean("test")) if c is not None]
    first, others = crops[0], crops[1:]
    made = []
    for draw in range(2):
        stream = generator(draw, "pictures")
        chosen = [others[int(i)] for i in torch.randint(len(others), (size - 1,), generator=stream)]
        turned = [torch.rot90(c, draw, (1, 2)) for c in chosen]
        with evaluation_mode(own.net, "batch", size) if batch_norms(own.net) else nullcontext():
            made.append(own.net(torch.stack([first, *turned]))[0].clamp(0, 1))
    difference = (made[0] - made[1]).abs()
    change = LEVELS * float((made[0] - made[1]).square().mean().sqrt())
    return [
        Shown(array(first), "crop"),
        Shown(array(made[0]), f"{own.name}, companions A"),
        Shown(array(made[1]), f"{own.name}, companions B"),
        Shown(array(TIMES * difference), f"difference, {TIMES} times", f"{change:.2g} levels"),
    ]


def array(image: Tensor) -> np.ndarray:
    """(C, H, W) as (H, W), or (H, W, 3) where it has colors, within [0, 1]."""
    plain = image.clamp(0, 1).cpu().numpy()
    return plain[0] if len(plain) == 1 else plain.transpose(1, 2, 0)


def _middle(image: Tensor) -> Tensor | None:
    """The middle square of an image (C, H, W); None where it is too small."""
    height, width = image.shape[1:]
    if min(height, width) < CROP:
        return None
    top, left = (height - CROP) // 2, (width - CROP) // 2
    return image[:, top : top + CROP, left : left + CROP]


def _score(judge: Task, output: Tensor, y: Tensor) -> dict[str, float]:
    """Loss and measures of one image: output (1, C, H, W), y (1, 2, C, H, W)."""
    found = judge.total([(output[:, None], y[:, None])])
    return dict(zip(("loss", *judge.measures), (float(v) for v in found), strict=True))


def _note(judge: Task, output: Tensor, y: Tensor) -> str:
    """What stands below a picture."""
    found = _score(judge, output, y)
    return f"{found['psnr']:.2f} dB" if "psnr" in found else f"loss {found['loss']:.3g}"
