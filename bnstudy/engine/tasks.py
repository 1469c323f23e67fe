"""What networks are trained for: a loss and its metrics, asked by the loop and by evaluation."""

import math
from collections.abc import Iterable
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from bnstudy.config import IGNORED

Score = tuple[Tensor, ...]  # loss, then one value for each of a task's metrics; (S,) each


class Task(Protocol):
    """Loss and metrics of a stack's outputs (N, S, *) for its targets (N, S, *).

    Attributes:
        metrics: names of what `score` returns beside the loss, as in `test_error`.
    """

    metrics: tuple[str, ...]

    @property
    def measures(self) -> tuple[str, ...]:
        """Names of what `total` returns beside the loss: `metrics`, and what takes long."""
        ...

    def score(self, output: Tensor, y: Tensor) -> Score:
        """Loss and metrics of a batch, of each network; only the loss is differentiable."""
        ...

    def total(self, pieces: Iterable[tuple[Tensor, Tensor]]) -> Score:
        """Loss and measures of a whole part of the data, which comes as (output, y) in pieces."""
        ...

    def diverged(self, name: str, data: Any) -> float:
        """What a measurement of this name counts as for a network that has diverged."""
        ...


class Classification:
    """Class numbers from logits: of an example, or of each labelled step of a sequence.

    Logits (N, S, K) and y (N, S), or (N, S, T, K) and (N, S, T) with IGNORED where a step has no
    label. Loss is the mean cross-entropy, error the fraction misclassified; of sequences over all
    labelled steps, each weighing the same.
    """

    metrics = measures = ("error",)

    def score(self, logits: Tensor, y: Tensor) -> Score:
        """Mean cross-entropy and error of each network."""
        loss = F.cross_entropy(logits.flatten(0, -2), y.flatten(), reduction="none").view(y.shape)
        wrong = (logits.detach().argmax(-1) != y).float()
        if y.dim() == 2:
            return loss.mean(0), wrong.mean(0)
        labelled = y != IGNORED
        count = labelled.sum((0, 2)).clamp(min=1)
        return loss.sum((0, 2)) / count, (wrong * labelled).sum((0, 2)) / count

    def total(self, pieces: Iterable[tuple[Tensor, Tensor]]) -> Score:
        """The same of all pieces together: sequences piece by piece, to bound memory."""
        pieces = iter(pieces)
        logits, y = first = next(pieces)
        if y.dim() == 2:
            return self.score(*map(torch.cat, zip(first, *pieces, strict=True)))
        sums = torch.zeros(3, logits.shape[1])
        for logits, y in (first, *pieces):
            count = (y != IGNORED).sum((0, 2)).cpu()
            loss, wrong = (value.cpu() for value in self.score(logits, y))
            sums += torch.stack([loss * count, wrong * count, count])
        return sums[0] / sums[2], sums[1] / sums[2]

    def diverged(self, name: str, data: Any) -> float:
        """An error counts as chance among the classes; anything else is not a number."""
        return 1 - 1 / data.num_classes if "error" in name else math.nan


CLASSIFICATION = Classification()
