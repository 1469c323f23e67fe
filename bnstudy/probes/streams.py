"""Batches that are not a fair sample: few classes at a time, tasks one after another."""

from typing import Any

import torch
from torch import Tensor

from bnstudy.data.samplers import classwise_order, generator
from bnstudy.probes import course


def composition(look: Any) -> dict[str, Tensor]:
    """Test error with batch statistics of batches composed like those of training: an oracle.

    `composition_error`: test batches of the training batch size with `train.classes_per_batch`
    classes each, made with the labels; `composition_left_out`: the share of test examples that
    fill no batch and are not scored.
    """
    if not look.has_batch_norm:
        return {}
    config, n = look.config, look.data.size("test")
    size, classes = config.train.batch_size, config.train.classes_per_batch
    labels = look.data.test_y[:n].cpu()
    fair = classes or look.data.num_classes
    orders = [
        classwise_order(labels, size, fair, generator(seed, "composition"))
        if size % fair == 0
        else torch.randperm(n, generator=generator(seed, "composition"))[: n // size * size]
        for seed in look.seeds
    ]
    index = torch.stack(orders, dim=1).to(look.stack.flat.device)
    wrong = []
    with look.stack.training(False), look.batch_statistics(config.norm.group_size or size):
        for rows in index.split(size * 8):
            x, y = look.data.take("test", rows)
            wrong.append((look.stack.predict(x).argmax(-1) != y).float())
    left = torch.full((look.stack.size,), 1 - len(index) / n)
    return {"composition_error": torch.cat(wrong).mean(0), "composition_left_out": left}


def forgetting(look: Any) -> dict[str, Tensor]:
    """What a stream of tasks loses of the earlier ones, and how much of it is statistics.

    Accuracy of each task after every evaluation; after the last: `forgetting`, the mean over all
    tasks but the last of best minus final accuracy; `statistics_loss`, the mean over the same tasks
    of accuracy with PreciseBN of the whole stream minus accuracy with the exponential average
    (for networks with BN); `old_tasks_error`, `old_tasks_error_precise`.
    """
    width = look.config.train.classes_per_task
    if not width:
        return {}

    def accuracy() -> Tensor:
        """(tasks, S)"""
        logits, labels = look.logits("test")
        right = (logits.argmax(-1) == labels).float()
        tasks = -(-look.data.num_classes // width)
        member = [(labels // width == t).float() for t in range(tasks)]
        return torch.stack([(right * m).sum(0) / m.sum(0).clamp(min=1) for m in member])

    with look.stack.training(False):
        now = accuracy()
        course(look, "task_accuracy", now)
        if not look.last:
            return {}
        best = torch.stack(look.memory["task_accuracy"]).amax(0)
        found = {
            "forgetting": (best - now)[:-1].mean(0),
            "old_tasks_error": 1 - now[:-1].mean(0),
        }
        if look.has_batch_norm:
            with look.stack.with_buffers(look.precise_statistics()):
                precise = accuracy()
            found["statistics_loss"] = (precise - now)[:-1].mean(0)
            found["old_tasks_error_precise"] = 1 - precise[:-1].mean(0)
    return found
