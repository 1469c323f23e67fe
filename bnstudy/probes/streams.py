"""Batches that are not a fair sample: few classes at a time, tasks one after another."""

from typing import Any

import torch
from torch import Tensor

from bnstudy.data.samplers import classwise_order, generator
from bnstudy.probes import course


def composition(view: Any) -> dict[str, Tensor]:
    """Test error with batch statistics of batches composed like those of training: an oracle.

    `composition_error`: test batches of the training batch size with `train.classes_per_batch`
    classes each, made with the labels; `composition_left_out`: the share of test examples that
    fill no batch and are not scored.
    """
    if not view.has_batch_norm:
        return {}
    config, n = view.config, view.data.size("test")
    size, classes = config.train.batch_size, config.train.classes_per_batch
    fair = classes or view.data.num_classes
    streams = [generator(seed, "composition") for seed in view.seeds]
    orders = [
        classwise_order(view.data.labels("test", i).cpu(), size, fair, stream)
        if size % fair == 0
        else torch.randperm(n, generator=stream)[: n // size * size]
        for i, stream in enumerate(streams)
    ]
    # seeds with test examples of their own fill different numbers of batches: a short column goes
    # on with example 0, which is not scored
    index = torch.nn.utils.rnn.pad_sequence(orders).to(view.stack.flat.device)
    wrong = []
    with view.stack.training(False), view.batch_statistics(config.norm.group_size or size):
        for rows in index.split(size * 8):
            x, y = view.data.take("test", rows)
            wrong.append((view.stack.predict(x).argmax(-1) != y).float())
    filled = torch.tensor([len(order) for order in orders], device=index.device)
    scored = torch.arange(len(index), device=index.device)[:, None] < filled
    left = torch.tensor([1 - len(order) / n for order in orders])
    error = (torch.cat(wrong) * scored).sum(0) / filled
    return {"composition_error": error, "composition_left_out": left}


def forgetting(view: Any) -> dict[str, Tensor]:
    """What a stream of tasks loses of the earlier ones, and how much of it is statistics.

    Accuracy of each task after every evaluation; after the last: `forgetting`, the mean over all
    tasks but the last of best minus final accuracy; `statistics_loss`, the mean over the same tasks
    of accuracy with PreciseBN of the whole stream minus accuracy with the exponential average
    (for networks with BN); `old_tasks_error`, `old_tasks_error_precise`.
    The same names with `_within`: only the classes of an example's own task compete, so that a head
    that answers with the last task's classes does not hide what was kept. `learned_error` is that
    of each task's best accuracy.
    """
    width = view.config.train.classes_per_task
    if not width:
        return {}

    def accuracy() -> Tensor:
        """(2, tasks, S): among all classes, and among those of the task"""
        logits, labels = view.logits("test")
        task = labels // width
        member = [task == t for t in range(-(-view.data.num_classes // width))]
        other = torch.arange(logits.shape[-1], device=logits.device) // width != task[..., None]
        answers = (logits, logits.masked_fill(other, -torch.inf))
        right = torch.stack([answer.argmax(-1) == labels for answer in answers])
        return torch.stack([(right & m).sum(1) / m.sum(0).clamp(min=1) for m in member], dim=1)

    with view.stack.training(False):
        now = accuracy()
        course(view, "task_accuracy", now)
        if not view.last:
            return {}
        best = torch.stack(view.memory["task_accuracy"]).amax(0)
        found = {
            "forgetting": best - now,
            "old_tasks_error": 1 - now,
            "learned_error": 1 - best,
        }
        if view.has_batch_norm:
            with view.stack.with_buffers(view.precise_statistics()):
                precise = accuracy()
            found["statistics_loss"] = precise - now
            found["old_tasks_error_precise"] = 1 - precise
    old = {name: value[:, :-1].mean(1) for name, value in found.items()}  # (2, S)
    return {
        name + suffix: value[i] for i, suffix in enumerate(("", "_within"))
        for name, value in old.items()
    }  # fmt: skip
