"""Networks that adapt to a stream of corrupted test images without labels (Wang et al. 2021)."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from bnstudy.data.corruptions import corrupt
from bnstudy.data.samplers import epoch_order, generator
from bnstudy.norms import Calibrator, Norm

SHIFTS = ("noise", "blur")
DRAWN = "noise"  # whose streams are also given tenth by tenth
BATCH = 64  # of the mixed and of the sorted stream
TENTHS = 10
BETA1, BETA2, EPS = 0.9, 0.999, 1e-8  # Adam's


class Entropy:
    """What Tent minimises: the entropy of each prediction, mean over the batch; no labels.

    The one metric is the predicted classes (S, N).
    """

    metrics = ("answers",)

    def score(self, logits: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Entropy in nats of each network (S,), and its answers, of logits (N, S, K)."""
        logs = logits.log_softmax(-1)
        return -(logs.exp() * logs).sum(-1).mean(0), logits.detach().argmax(-1).T


def streams(view: Any) -> dict[str, tuple[Tensor, int]]:
    """Order of the test examples (examples, S), and examples in a batch, by name of the stream.

    `mixed`: passes over the test part, each in a random order from (seed, "stream"); `single`: the
    same order, one example at a time; `sorted`: the same examples, one class after another.
    """
    n, length = view.data.size("test"), view.config.evaluate.stream
    size = min(BATCH, length // TENTHS)
    length = length // size * size
    orders = []
    for seed in view.seeds:
        stream = generator(seed, "stream")
        orders.append(torch.cat([epoch_order(n, stream) for _ in range(-(-length // n))])[:length])
    ordered = []
    for i, order in enumerate(orders):
        labels = view.data.labels("test", i).cpu()[order]
        ordered.append(order[labels.argsort(stable=True)])
    device = view.stack.flat.device
    mixed, by_class = (torch.stack(own, dim=1).to(device) for own in (orders, ordered))
    return {"mixed": (mixed, size), "single": (mixed, 1), "sorted": (by_class, size)}


def adaptation(view: Any) -> dict[str, Tensor]:
    """Errors on corrupted streams of the trained network, and while it adapts to them.

    `<stream>_<way>_<shift>_error`: over the stream, each batch predicted as it comes; `_late_error`
    over its second half, `_share` the part of the predictions there that the commonest one has.
    Streams: `mixed`, `single`, `sorted` (see `streams`), of noise and blur at `evaluate.severity`.
    Of noise also by tenths: `<stream>_<way>_error/01` to `/10`.
    Ways: `source`, the trained network; `batch`, batch norms by the statistics of each batch;
    `tent`, besides with one step of Adam on gamma and beta after each batch, down the entropy of
    its predictions, at `evaluate.adaptation_lr` times batch / 64 (Wang et al. 2021). Networks
    without batch norm have no `batch`, and those without gamma and beta no `tent`; batch norms that
    see single values have no statistics of one example.
    All adapts on a copy of the weights: after each stream they are as they were.
    """
    found: dict[str, Tensor] = {}
    stack = view.stack
    affine = _affine(view)
    with stack.training(False):
        for shift in SHIFTS:
            change = partial(corrupt, name=shift, severity=view.config.evaluate.severity)
            here = replace(view, data=view.data.with_raw("test", change))
            for stream, (rows, size) in streams(view).items():
                labels = here.data.take("test", rows)[1]
                answers = {"source": _answers(here, rows, BATCH)}
                if not view.has_batch_norm or size > 1 or _values(view) > 1:
                    own = view.batch_statistics(size) if view.has_batch_norm else nullcontext()
                    with own:
                        if view.has_batch_norm:
                            answers["batch"] = _answers(here, rows, size)
                        if affine.any():
                            answers["tent"] = tent(here, rows, size, affine)
                for way, answered in answers.items():
                    key = f"{stream}_{way}"
                    found |= _scored(f"{key}_{shift}", answered, labels)
                    if shift == DRAWN:
                        found |= _tenths(f"{key}_error", answered != labels)
    return found


def tent(view: Any, rows: Tensor, size: int, affine: Tensor) -> Tensor:
    """Answers (examples, S) of networks that minimise entropy batch by batch; put back after it.

    Each batch is answered before it moves anything. Adam with Kingma & Ba's constants.

    Args:
        rows: order of the test examples, (examples, S).
        size: of a batch; divides the examples.
        affine: 1 where a parameter moves, else 0, of the shape of the weights.
    """
    stack, answers = view.stack, []
    rate = view.config.evaluate.adaptation_lr * size / BATCH
    first, second = torch.zeros_like(stack.flat), torch.zeros_like(stack.flat)
    with _copied(stack), stack.scored_by(Entropy()):
        for step, index in enumerate(rows.split(size), start=1):
            answers.append(stack.gradient(*view.data.take("test", index))[1].T.clone())
            gradient = stack.grad * affine
            first.lerp_(gradient, 1 - BETA1)
            second.lerp_(gradient.square(), 1 - BETA2)
            root = (second / (1 - BETA2**step)).sqrt_().add_(EPS)
            stack.flat.addcdiv_(first, root, value=-rate / (1 - BETA1**step))
    return torch.cat(answers)


@contextmanager
def _copied(stack: Any) -> Iterator[None]:
    """Weights and gradient after the block as before it."""
    before, gradient = stack.flat.clone(), stack.grad.clone()
    try:
        yield
    finally:
        stack.flat.copy_(before)
        stack.grad.copy_(gradient)


def _answers(view: Any, rows: Tensor, size: int) -> Tensor:
    """Predicted classes (examples, S) of networks that stay as they are."""
    batches = (view.data.take("test", index)[0] for index in rows.split(size))
    return torch.cat([view.stack.predict(x).argmax(-1) for x in batches])


def _affine(view: Any) -> Tensor:
    """1 at the gamma and beta of norm layers, else 0, of the shape of the weights."""
    found = torch.zeros_like(view.stack.flat)
    layers = {name for name, m in view.stack.net.named_modules() if isinstance(m, Norm)}
    for name, block in view.stack.blocks(found).items():
        if name.rpartition(".")[0] in layers:
            block.fill_(1)
    return found


def _values(view: Any) -> int:
    """Values behind the statistics of one example, in the batch norm that has fewest."""
    index = torch.zeros(2, view.stack.size, dtype=torch.long, device=view.stack.flat.device)
    with view.stack.with_buffers({}), Calibrator(view.stack.net) as calibrator:
        view.stack.observe(calibrator, view.data.take("test", index)[0])
    return min(calibrator.counts.values()) // 2


def _scored(key: str, answers: Tensor, labels: Tensor) -> dict[str, Tensor]:
    """Error over a stream and over its second half, and the share of the commonest answer there."""
    wrong, half = (answers != labels).float(), len(answers) // 2
    late = answers[half:]
    counts = torch.stack([(late == k).sum(0) for k in range(int(answers.max()) + 1)])
    return {
        f"{key}_error": wrong.mean(0),
        f"{key}_late_error": wrong[half:].mean(0),
        f"{key}_share": counts.amax(0) / len(late),
    }


def _tenths(key: str, wrong: Tensor) -> dict[str, Tensor]:
    """Error of each tenth of a stream."""
    pieces = wrong.float().tensor_split(TENTHS)
    return {f"{key}/{i:02d}": own.mean(0) for i, own in enumerate(pieces, start=1)}
