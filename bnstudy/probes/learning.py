"""How fast a network learns, and how well it fits what it has learned from."""

import math
from typing import Any

import torch
from torch import Tensor

LEVELS = (1.0, 0.5, 0.25, 0.1)  # of the training loss, in nats for a classification
WINDOW = 10  # steps: the loss of one batch falls below a level by chance


def steps_to_loss(view: Any) -> dict[str, Tensor]:
    """Steps until the training loss, a mean over the last ten steps, is below each level.

    `steps_to_1`, `steps_to_0.5`, `steps_to_0.25`, `steps_to_0.1`: the number of steps taken then,
    ten at least; not a number where that never happens. In training mode, while the weights move.
    """
    losses = view.losses.double()
    found = torch.full((losses.shape[0], len(LEVELS)), math.nan, dtype=torch.float64)
    if losses.shape[1] >= WINDOW:
        below = losses.unfold(1, WINDOW, 1).mean(-1)[..., None] < torch.tensor(LEVELS).to(losses)
        first = below.int().argmax(1) + WINDOW
        found = torch.where(below.any(1), first.double(), math.nan)
    return {f"steps_to_{level:g}": found[:, i] for i, level in enumerate(LEVELS)}


def fit(view: Any) -> dict[str, Tensor]:
    """Loss and error on the training part, read as the test part is: `fit_loss`, `fit_error`.

    In evaluation mode, batch norm by its exponential average, nothing dropped: `train_error` is
    measured while the weights move, with the noise of dropout and of batch statistics.
    """
    with view.stack.training(False):
        loss, error = view.score("train")
    return {"fit_loss": loss, "fit_error": error}
