"""Data of one's own: an entry that returns a Dataset, checked at once."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bnstudy.config import IGNORED
from bnstudy.entry import call
from bnstudy.errors import UserError

if TYPE_CHECKING:
    from bnstudy.config import DataConfig
    from bnstudy.data import Dataset


def load(cfg: "DataConfig", cache_dir: Path | None = None) -> "Dataset":
    """Data of one's own: `entry` is called with the DataConfig and returns a raw Dataset."""
    from bnstudy.data import Dataset

    data = call(cfg.entry, "data.entry", cfg)
    if not isinstance(data, Dataset):
        raise UserError(
            f"data.entry={cfg.entry} returned a {type(data).__name__}; it must return a "
            "bnstudy.data.Dataset"
        )
    data = data.with_parts(lambda part, x, y: _checked(cfg.entry, data, part, x, y))
    if data.train_x.ndim == 3 and cfg.train_size is not None:
        return _fewer(data, cfg.train_size)
    return data


def _fewer(data: "Dataset", size: int) -> "Dataset":
    """So many training sequences, from all over."""
    import torch

    n = len(data.train_y)
    if size > n:
        raise UserError(f"data.train_size={size} is larger than the training part: {n} sequences")
    chosen = torch.linspace(0, n - 1, size).long()
    return replace(data, train_x=data.train_x[chosen], train_y=data.train_y[chosen])


def _checked(entry: str, data: "Dataset", part: str, x: Any, y: Any) -> tuple[Any, Any]:
    """One part of someone's data with the dtypes we compute in, or a UserError."""
    import torch

    def refuse(what: str) -> UserError:
        return UserError(f"data.entry={entry}: {part}_{what}")

    if not isinstance(x, torch.Tensor) or x.ndim not in (3, 4):
        given = tuple(x.shape) if hasattr(x, "shape") else type(x).__name__
        raise refuse(
            f"x must be a tensor of shape (n, C, H, W), sequences (n, F + 1, T); given {given}"
        )
    if x.shape[1:] != data.train_x.shape[1:]:
        raise refuse(
            f"x has examples of shape {tuple(x.shape[1:])}, train_x of "
            f"{tuple(data.train_x.shape[1:])}: they must agree"
        )
    if x.ndim == 3:
        return _checked_sequences(refuse, data, x, y)
    if not isinstance(y, torch.Tensor) or y.shape != x.shape[:1] or not len(y):
        given = tuple(y.shape) if hasattr(y, "shape") else type(y).__name__
        raise refuse(
            f"y must be one label for each of at least one image ({len(x)}), given {given}"
        )
    if y.is_floating_point() or y.min() < 0 or y.max() >= data.num_classes:
        raise refuse(
            f"y must be whole numbers from 0 to {data.num_classes - 1}, given {y.dtype} from "
            f"{y.min().item()} to {y.max().item()}"
        )
    if not torch.isfinite(x).all():
        raise refuse("x holds NaN or infinity")
    return x.to(torch.float32).contiguous(), y.to(torch.int64)


def _checked_sequences(refuse: Any, data: "Dataset", x: Any, y: Any) -> tuple[Any, Any]:
    """The same for sequences with masks, or tokens."""
    import torch

    n, channels, steps = x.shape
    if not isinstance(y, torch.Tensor) or y.shape != (n, steps) or y.is_floating_point() or not n:
        given = tuple(y.shape) if hasattr(y, "shape") else type(y).__name__
        raise refuse(
            f"y must be whole numbers of shape ({n}, {steps}): a label for each step of at least "
            f"one sequence, {IGNORED} where nothing is asked; given {given}"
        )
    asked = y[y != IGNORED]
    if len(asked) and (asked.min() < 0 or asked.max() >= data.num_classes):
        raise refuse(
            f"y must be from 0 to {data.num_classes - 1} or {IGNORED}, given {asked.min().item()} "
            f"to {asked.max().item()}"
        )
    if data.vocabulary:
        if x.is_floating_point() or channels != 1 or x.max() >= data.vocabulary:
            raise refuse(
                f"x must be whole numbers (n, 1, T) below vocabulary={data.vocabulary}, -1 where "
                f"padded; given {x.dtype} {tuple(x.shape)} up to {x.max().item()}"
            )
        valid, x = x[:, 0] >= 0, x.to(torch.int64)
    else:
        if channels < 2 or not torch.isfinite(x).all():
            raise refuse("x must be finite: F channels of values and, last, the mask of 0 and 1")
        valid, x = x[:, -1] > 0, x.to(torch.float32)
    empty = (~valid[:, 0]).nonzero().flatten()
    if len(empty):
        raise refuse(f"x: sequence {empty[0].item()} has length 0 (its first step is padding)")
    if (valid[:, 1:] & ~valid[:, :-1]).any():
        raise refuse("x: padding must lie at the end of a sequence")
    if (y[~valid] != IGNORED).any():
        raise refuse(f"y must be {IGNORED} at padded steps")
    return x.contiguous(), y.to(torch.int64)
