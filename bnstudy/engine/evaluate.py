"""Measuring a stack, with every source of statistics that batch normalization can be read with."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from bnstudy.config import IGNORED, Config
from bnstudy.data.samplers import evaluation_order, generator
from bnstudy.engine.vectorize import Stack, score
from bnstudy.norms import Calibrator, batch_norms, evaluation_mode

CHUNK = 512  # examples in one forward: bounds memory, changes no result

# suffix of the metric's name -> what it is, as figures and tables call it
MODES = {
    "": "exponential average",
    "_precise": "PreciseBN",
    "_batch": "batch statistics, training batch size",
    "_large_batch": "batch statistics, large batch",
}

Measured = dict[str, Tensor]  # name -> (S,), one value per network


@dataclass
class Look:
    """A stack in evaluation mode, and the ways to read it; what a probe is handed.

    Attributes:
        stack: the networks.
        data: the Dataset they learn from.
        config: what the networks share.
        seeds: one per network.
        update: the optimiser (`lr(step)`, `averaged_weights()`).
        last: whether training is over.
        measured: what was found at this evaluation so far.
        memory: what probes keep from one evaluation to the next.
    """

    stack: Stack
    data: Any
    config: Config
    seeds: tuple[int, ...]
    update: Any
    last: bool = False
    measured: Measured = field(default_factory=dict)
    memory: dict[str, Any] = field(default_factory=dict)

    @property
    def has_batch_norm(self) -> bool:
        """Whether there are population statistics to read or replace."""
        return bool(batch_norms(self.stack.net))

    def logits(self, part: str, multiple: int = 1) -> tuple[Tensor, Tensor]:
        """Logits (n, S, *, K) and labels (n, S, *) of a part.

        In one fixed shuffle from (seed, "eval").

        Args:
            part: "train", "val" or "test".
            multiple: batches are completed to a multiple of it with examples that are not scored.
        """
        found = list(self._chunks(part, multiple))
        n = self.data.size(part)
        return tuple(torch.cat(pieces)[:n] for pieces in zip(*found, strict=True))

    def _chunks(self, part: str, multiple: int) -> Iterator[tuple[Tensor, Tensor]]:
        """The same, piece by piece, the unscored companions at the end included."""
        n, device = self.data.size(part), self.stack.flat.device
        orders = [evaluation_order(n, seed, multiple)[0] for seed in self.seeds]
        index = torch.stack(orders, dim=1).to(device)  # (n, S)
        steps = self.data.test_y.shape[1] if self.data.test_y.dim() > 1 else 1
        most = min(CHUNK, CHUNK * 32 // steps)  # long sequences take more room
        for rows in index.split(max(multiple, most // multiple * multiple)):
            x, y = self.data.take(part, rows)
            yield self.stack.predict(x), y

    def score(self, part: str, multiple: int = 1) -> tuple[Tensor, Tensor]:
        """Mean cross-entropy and error of each network, every example scored once.

        Of sequences: every step that has a label, each weighing the same.
        """
        if self.data.test_y.dim() == 1:
            return score(*self.logits(part, multiple))
        left, sums = self.data.size(part), torch.zeros(3, self.stack.size)
        for logits, wanted in self._chunks(part, multiple):
            logits, wanted = logits[:left], wanted[:left]
            if not len(wanted):
                break
            count = (wanted != IGNORED).sum((0, 2)).cpu()
            loss, wrong = (value.cpu() for value in score(logits, wanted))
            sums += torch.stack([loss * count, wrong * count, count])
            left -= len(wanted)
        return sums[0] / sums[2], sums[1] / sums[2]

    @contextmanager
    def batch_statistics(self, size: int) -> Iterator[None]:
        """Within the block each `size` consecutive examples are read by their own statistics."""
        with evaluation_mode(self.stack.net, "batch", size):
            yield

    def precise_statistics(
        self,
        examples: int | None = None,
        batch: int | None = None,
        estimator: str = "population",
    ) -> dict[str, Tensor]:
        """PreciseBN: population statistics recomputed with fixed weights (Wu & Johnson 2021, 3.1).

        From min(examples, n) training examples of the (seed, "eval") shuffle, with the pixel
        noise of training, in whole batches. Use them with `stack.with_buffers(statistics)`.

        Args:
            examples: default `evaluate.precise_examples`.
            batch: default `evaluate.large_batch`.
            estimator: "population" (pooled, Bessel's correction undone) or "mean_of_batches".
        """
        available = self.data.size("train")
        n = min(examples or self.config.evaluate.precise_examples, available)
        size = min(batch or self.config.evaluate.large_batch, n)
        orders = [evaluation_order(available, seed, 1)[0] for seed in self.seeds]
        index = torch.stack(orders, dim=1)[: n // size * size].to(self.stack.flat.device)
        noise = [generator(seed, "eval_noise") for seed in self.seeds]
        with self.stack.with_buffers({}), Calibrator(self.stack.net, estimator) as calibrator:
            for rows in index.split(size):
                self.stack.observe(calibrator, self.data.take("train", rows, noise)[0])
        return calibrator.statistics()


def evaluate(look: Look) -> Measured:
    """Loss and error of each network, (S,) each; errors are fractions.

    Headline (`test_loss`, `test_error`, `val_error`): evaluation mode, for BN its exponential
    average. For networks with BN also test loss and error with the suffixes of `MODES`: PreciseBN
    statistics of up to `evaluate.precise_examples` training examples; each test batch's own
    statistics, at the batch (or ghost group) size of training and at `evaluate.large_batch`. With
    `optimizer.weight_average` the same of the averaged weights, by exponential average and
    PreciseBN, as `test_error_averaged` and `test_error_averaged_precise`. In recurrent networks
    with batch norm `reused_statistics`: how many steps of training batches had too few valid
    examples for statistics of their own (in the norm that met most of them).
    """
    config, stack = look.config, look.stack
    large = min(config.evaluate.large_batch, look.data.size("test"))
    apart = 1 if config.norm.sync else config.train.processes
    size = config.norm.group_size or config.train.batch_size // apart
    result: Measured = {}

    def measure(suffix: str, group: int = 1) -> None:
        loss, error = look.score("test", group)
        result["test_loss" + suffix], result["test_error" + suffix] = loss, error

    reused = [m.reused for m in stack.net.modules() if hasattr(m, "reused")]
    if reused:
        result["reused_statistics"] = torch.stack(reused).amax(0).float()
    with stack.training(False):
        measure("")
        _, result["val_error"] = look.score("val")
        if look.has_batch_norm:
            for suffix, group in (("_batch", size), ("_large_batch", large)):
                with look.batch_statistics(group):
                    measure(suffix, group)
            with stack.with_buffers(look.precise_statistics()):
                measure("_precise")
        if config.optimizer.weight_average:
            with look.update.averaged_weights():
                measure("_averaged")
                if look.has_batch_norm:
                    with stack.with_buffers(look.precise_statistics()):
                        measure("_averaged_precise")
    return result
