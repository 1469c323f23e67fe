"""What a network makes of the same few images, so that two runs can be compared as functions."""

from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor

from bnstudy.probes import course

BATCH = 64  # test images that are read together
SHOWN = 8  # of them, of which one logit is kept


def logits(view: Any) -> dict[str, Tensor]:
    """One logit of each of 8 fixed test images, as training would compute it, at each evaluation.

    `logit_1/01` to `logit_8/..`: the first number is the image's, the second the evaluation's; of
    image i the logit of class i, counted on from the first class after the last. The first 64 test
    images (all, where there are fewer) are one batch, which batch norms normalize by its own
    statistics.
    """
    stack, size = view.stack, min(BATCH, view.data.size("test"))
    index = torch.arange(size, device=stack.flat.device)[:, None].expand(-1, stack.size)
    images, _ = view.data.take("test", index)
    own = view.batch_statistics(size) if view.has_batch_norm else nullcontext()
    with stack.training(False), own:
        found = stack.predict(images)  # (size, S, K)
    result: dict[str, Tensor] = {}
    for i in range(min(SHOWN, size)):
        result |= course(view, f"logit_{i + 1}", found[i, :, i % found.shape[-1]].clone())
    return result
