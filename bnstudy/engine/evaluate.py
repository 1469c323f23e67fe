"""Measuring a stack, with every source of statistics that batch normalization can be read with."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from bnstudy.config import Config
from bnstudy.data.samplers import evaluation_order
from bnstudy.engine.vectorize import Stack
from bnstudy.norms import Calibrator, batch_norms, evaluation_mode

CHUNK = 512  # examples in one forward: bounds memory, changes no result

# suffix of the metric's name -> what it is, as figures and tables call it
MODES = {
    "": "exponential average",
    "_precise": "PreciseBN",
    "_batch": "batch statistics, training batch size",
    "_large_batch": "batch statistics, large batch",
}


def evaluate(stack: Stack, data: Any, config: Config, seeds: tuple[int, ...]) -> dict[str, Tensor]:
    """Loss and error of each network, (S,) each; errors are fractions.

    Headline (`test_loss`, `test_error`, `val_error`): evaluation mode, for BN its exponential
    average. For networks with BN also test loss and error with the suffixes of `MODES`: PreciseBN
    statistics of up to `evaluate.precise_examples` training examples; each test batch's own
    statistics, at the batch (or ghost group) size of training and at `evaluate.large_batch`.
    """
    size = config.norm.group_size or config.train.batch_size
    large = min(config.evaluate.large_batch, len(data.test_y))
    result = {}
    with stack.training(False):
        result["test_loss"], result["test_error"] = score(stack, data.test_x, data.test_y, seeds)
        _, result["val_error"] = score(stack, data.val_x, data.val_y, seeds)
        if not batch_norms(stack.net):
            return result
        for suffix, group in (("_batch", size), ("_large_batch", large)):
            with evaluation_mode(stack.net, "batch", group):
                loss, error = score(stack, data.test_x, data.test_y, seeds, group)
            result["test_loss" + suffix], result["test_error" + suffix] = loss, error
        with stack.with_buffers(precise_statistics(stack, data, config, seeds)):
            loss, error = score(stack, data.test_x, data.test_y, seeds)
        result["test_loss_precise"], result["test_error_precise"] = loss, error
    return result


def score(
    stack: Stack, x: Tensor, y: Tensor, seeds: tuple[int, ...], multiple: int = 1
) -> tuple[Tensor, Tensor]:
    """Mean cross-entropy and error of each network, every example scored once.

    Examples come in one fixed shuffle from (seed, "eval"); `multiple` completes the last batch
    with examples that are not scored.
    """
    orders = [evaluation_order(len(y), seed, multiple) for seed in seeds]
    index = torch.stack([order for order, _ in orders], dim=1).to(y.device)  # (n, S)
    chunk = max(multiple, CHUNK // multiple * multiple)
    logits = torch.cat([stack.predict(x[part]) for part in index.split(chunk)])[: len(y)]
    wanted = y[index[: len(y)]]
    loss = F.cross_entropy(logits.movedim(-1, 1), wanted, reduction="none").mean(0)
    return loss, (logits.argmax(-1) != wanted).float().mean(0)


def precise_statistics(
    stack: Stack, data: Any, config: Config, seeds: tuple[int, ...]
) -> dict[str, Tensor]:
    """PreciseBN: population statistics recomputed with fixed weights (Wu & Johnson 2021, 3.1).

    From min(`evaluate.precise_examples`, n) training examples of the (seed, "eval") shuffle in
    whole batches of `evaluate.large_batch`, pooled with Bessel's correction undone.
    """
    n = min(config.evaluate.precise_examples, len(data.train_y))
    size = min(config.evaluate.large_batch, n)
    orders = [evaluation_order(len(data.train_y), seed, 1)[0] for seed in seeds]
    index = torch.stack(orders, dim=1)[: n // size * size].to(data.train_y.device)
    with stack.with_buffers({}), Calibrator(stack.net) as calibrator:
        for part in index.split(size):
            stack.observe(calibrator, data.train_x[part])
    return calibrator.statistics()
