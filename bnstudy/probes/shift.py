"""Corrupted test images, and which statistics they are read with."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from bnstudy.data.corruptions import CORRUPTIONS, SEVERITIES, corrupt
from bnstudy.norms import batch_norms
from bnstudy.norms.base import attributes

BATCHES = (4, 16, 64, 256)  # test batches whose own statistics are used
PRIORS = (16, 64)  # examples that the training statistics count for
MIXED_BATCH = 16
SIZES = (2, 4, 8, 16, 32, 64, 128, 256)
ALPHAS = (0.1, 0.3, 0.5, 0.7, 0.9)
PRIOR_GRID = (1, 4, 16, 64, 256)
BINS = 15


@contextmanager
def reading(view: Any, evaluation: str, **settings: Any) -> Iterator[None]:
    """The batch norms of the stack set to one way of evaluation within the block."""
    layers = list(batch_norms(view.stack.net).values())
    with attributes(layers, evaluation=evaluation, **settings):
        yield


def calibration_error(logits: Tensor, labels: Tensor) -> Tensor:
    """Expected calibration error of each network, (S,): 15 bins of equal width (Guo et al. 2017).

    Mean over examples of |accuracy - confidence| of their bin. logits (n, S, K), labels (n, S).
    """
    confidence, predicted = logits.softmax(-1).max(-1)
    right = (predicted == labels).to(confidence.dtype)
    # a network whose logits are not numbers counts in some bin, and its error is not a number
    place = (confidence * BINS).nan_to_num(0).long().clamp(max=BINS - 1)
    sums = torch.zeros(BINS, logits.shape[1], dtype=confidence.dtype, device=logits.device)
    return sums.scatter_add(0, place, right - confidence).abs().sum(0) / len(labels)


def _scored(view: Any, multiple: int = 1) -> tuple[Tensor, Tensor]:
    """Error and calibration error of each network on the test part."""
    logits, labels = view.logits("test", multiple)
    return (logits.argmax(-1) != labels).float().mean(0), calibration_error(logits, labels)


def corruptions(view: Any) -> dict[str, Tensor]:
    """Error and calibration error under every corruption and severity, by source of statistics.

    `contrast_3_error` with the training statistics (what a network without BN has, too),
    `contrast_3_error_batch256` with those of test batches of 256; at severity 3 also batches of 4,
    16 and 64, and mixtures of a batch of 16 with a prior of 16 and 64 examples (`_prior16`).
    """
    found = {}
    with view.stack.training(False):
        for name in CORRUPTIONS:
            for severity in SEVERITIES:
                shift = partial(corrupt, name=name, severity=severity)
                here = replace(view, data=view.data.with_raw("test", shift))
                key = f"{name}_{severity}"
                found[f"{key}_error"], found[f"{key}_ece"] = _scored(here)
                if not view.has_batch_norm:
                    continue
                for size in BATCHES if severity == 3 else BATCHES[-1:]:
                    size = min(size, view.data.size("test"))
                    with view.batch_statistics(size):
                        error, ece = _scored(here, size)
                    found[f"{key}_error_batch{size}"] = error
                    found[f"{key}_ece_batch{size}"] = ece
                for prior in PRIORS if severity == 3 else ():
                    with reading(
                        view,
                        "mixture",
                        prior_examples=float(prior),
                        evaluation_group_size=MIXED_BATCH,
                    ):
                        found[f"{key}_error_prior{prior}"], _ = _scored(here, MIXED_BATCH)
    return found


def evaluation_batch(view: Any) -> dict[str, Tensor]:
    """Test error by evaluation batch, by prior, and by the example's own share.

    `batch_8_error`: batch statistics of 8 examples. `prior_16_error_at_4`: mixture of a batch of 4
    with a prior of 16 examples (Schneider et al. 2020). `alpha_0.3_error`: an example's own
    statistics count 0.3 (Singh & Shrivastava 2019). Only for networks with BN.
    """
    found: dict[str, Tensor] = {}
    if not view.has_batch_norm:
        return found
    with view.stack.training(False):
        for size in SIZES:
            if size <= view.data.size("test"):
                with view.batch_statistics(size):
                    found[f"batch_{size}_error"] = view.score("test", size)[1]
        for size in (1, 4):
            for prior in PRIOR_GRID:
                with reading(
                    view, "mixture", prior_examples=float(prior), evaluation_group_size=size
                ):
                    found[f"prior_{prior}_error_at_{size}"] = view.score("test", size)[1]
        for alpha in ALPHAS:
            with reading(view, "example", alpha=alpha):
                found[f"alpha_{alpha}_error"] = view.score("test")[1]
    return found
