"""Images and their corrupted copies, each kind by statistics of its own (train.corruption)."""

from dataclasses import replace
from typing import Any

from torch import Tensor


def copies(view: Any) -> dict[str, Tensor]:
    """Test error under the corruption of training, by two populations.

    `corrupted_error`: by what training left, as `test_error` is of clean images;
    `corrupted_error_own`: by statistics recomputed from corrupted training images alone, as
    `test_error_precise` is of clean ones.
    """
    train = view.config.train
    if train.corruption == "none":
        return {}
    data = view.data
    for part in ("train", "test"):
        data = data.corrupted(part, train.corruption, train.severity)
    here = replace(view, data=data)
    found = {}
    with view.stack.training(False):
        found["corrupted_error"] = here.score("test")[1]
        if view.has_batch_norm:
            with view.stack.with_buffers(here.precise_statistics()):
                found["corrupted_error_own"] = here.score("test")[1]
    return found
