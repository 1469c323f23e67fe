"""Measuring a stack, with every source of statistics that batch normalization can be read with."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from bnstudy.config import Config
from bnstudy.data.samplers import evaluation_order, generator
from bnstudy.engine.stack import Stack
from bnstudy.engine.tasks import Score
from bnstudy.norms import Calibrator, batch_norms, evaluation_mode

CHUNK = 512  # examples in one forward: bounds memory, changes no result

# suffix of the metric's name -> what it is, as figures and tables call it
MODES = {
    "": "exponential average",
    "_precise": "PreciseBN",
    "_batch": "batch statistics, training batch size",
    "_large_batch": "batch statistics, large batch",
    "_image": "statistics of the image itself",  # of photographs, in the place of the last two
}

Measured = dict[str, Tensor]  # name -> (S,), one value per network


@dataclass
class View:
    """A stack in evaluation mode, and the ways to read it; what a probe is handed.

    Attributes:
        stack: the networks.
        data: the Dataset they learn from.
        config: what the networks share.
        seeds: one per network.
        update: the optimiser (`lr(step)`, `averaged_weights()`).
        last: whether training is over.
        measured: what was found at this evaluation so far.
        losses: training loss at each step so far, (S, steps).
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
    losses: Tensor = field(default_factory=lambda: torch.empty(0, 0))

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
        return tuple(map(torch.cat, zip(*self._pieces(part, multiple), strict=True)))

    def _pieces(self, part: str, multiple: int) -> Iterator[tuple[Tensor, Tensor]]:
        """The same piece by piece, without the companions that complete the last batch.

        Of photographs each is a piece, whole, the same for every network.
        """
        if self.data.kind == "photographs":  # which differ in size
            for x, y in self.data.whole(part):
                x, y = (t.to(self.stack.flat.device)[:, None] for t in (x, y))
                x, y = (t.expand(-1, self.stack.size, *t.shape[2:]) for t in (x, y))
                yield self.stack.predict(x), y
            return
        n, device = self.data.size(part), self.stack.flat.device
        orders = [evaluation_order(n, seed, multiple)[0] for seed in self.seeds]
        index = torch.stack(orders, dim=1).to(device)  # (n, S)
        steps = self.data.test_y.shape[1] if self.data.test_y.dim() > 1 else 1
        most = min(CHUNK, CHUNK * 32 // steps)  # long sequences take more room
        left = n
        for rows in index.split(max(multiple, most // multiple * multiple)):
            x, y = self.data.take(part, rows)
            yield self.stack.predict(x)[:left], y[:left]
            left -= len(rows)

    def score(self, part: str, multiple: int = 1) -> Score:
        """The task's loss and metrics of each network on a part, every example scored once."""
        return self.stack.task.total(self._pieces(part, multiple))

    def outputs(self, part: str) -> Iterator[tuple[Tensor, Tensor]]:
        """Output and target of each photograph of a part, whole, as the task takes them."""
        return self._pieces(part, 1)

    def measures(self, part: str) -> Measured:
        """`score` by the names of the task's measures, without the loss."""
        return dict(zip(self.stack.task.measures, self.score(part)[1:], strict=True))

    def each(self, part: str) -> list[Measured]:
        """`measures` of each photograph of a part by itself."""
        task = self.stack.task
        found = [task.total([piece])[1:] for piece in self.outputs(part)]
        return [dict(zip(task.measures, own, strict=True)) for own in found]

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


def evaluate(view: View) -> Measured:
    """The task's loss and metrics of each network, (S,) each; errors are fractions.

    Headline (of a classification `test_loss`, `test_error`, `val_error`): evaluation mode, for BN
    its exponential average. For networks with BN also test loss and error with the suffixes of
    `MODES`: PreciseBN statistics of up to `evaluate.precise_examples` training examples; each test
    batch's own statistics, at the batch (or ghost group) size of training and at
    `evaluate.large_batch`; of photographs, which are read one at a time, the image's own. With
    `optimizer.weight_average` the same of the averaged weights, by
    exponential average and PreciseBN, as `test_error_averaged` and `test_error_averaged_precise`.
    In recurrent networks with batch norm `reused_statistics`: how many steps of training batches
    had too few valid examples for statistics of their own (in the norm that met most of them).
    """
    config, stack = view.config, view.stack
    if view.data.kind == "photographs":
        groups = {"_image": 1}
    else:
        parts = 1 if config.norm.sync else config.train.processes
        size = config.norm.group_size or config.train.batch_size // parts
        large = min(config.evaluate.large_batch, view.data.size("test"))
        groups = {"_batch": size, "_large_batch": large}
    task, result = stack.task, {}

    def measure(suffix: str, group: int = 1) -> None:
        for name, value in zip(("loss", *task.measures), view.score("test", group), strict=True):
            result[f"test_{name}{suffix}"] = value

    reused = [m.reused for m in stack.net.modules() if hasattr(m, "reused")]
    if reused:
        result["reused_statistics"] = torch.stack(reused).amax(0).float()
    with stack.training(False):
        measure("")
        for name, value in zip(task.measures, view.score("val")[1:], strict=True):
            result[f"val_{name}"] = value
        if view.has_batch_norm:
            for suffix, group in groups.items():
                with view.batch_statistics(group):
                    measure(suffix, group)
            with stack.with_buffers(view.precise_statistics()):
                measure("_precise")
        if config.optimizer.weight_average:
            with view.update.averaged_weights():
                measure("_averaged")
                if view.has_batch_norm:
                    with stack.with_buffers(view.precise_statistics()):
                        measure("_averaged_precise")
    return result
