"""Data of one's own: an entry that returns a Dataset, checked at once."""

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bnstudy.config import IGNORED
from bnstudy.entry import call, defined, kind, locate, returned
from bnstudy.errors import UserError

if TYPE_CHECKING:
    from bnstudy.config import DataConfig
    from bnstudy.data import Dataset


def load(cfg: "DataConfig", cache_dir: Path | None = None) -> "Dataset":
    """Data of one's own: `entry` is called with the DataConfig and returns a raw Dataset."""
    from bnstudy.data import Dataset

    data = call(cfg.entry, "data.entry", cfg)
    if not isinstance(data, Dataset):
        wanted = "it must return a bnstudy.data.Dataset"
        raise returned(cfg.entry, "data.entry", data, wanted)
    return data.with_parts(lambda part, x, y: _checked(cfg.entry, data, part, x, y))


def fingerprint(data: "Dataset") -> str:
    """Hash over the names, dtypes, shapes and bytes of a Dataset's tensors, and its classes."""
    found = hashlib.sha256(repr((data.num_classes, data.vocabulary)).encode())
    for part, x, y in data.parts():
        for name, tensor in ((f"{part}_x", x), (f"{part}_y", y)):
            found.update(repr((name, str(tensor.dtype), tuple(tensor.shape))).encode())
            found.update(tensor.cpu().contiguous().numpy().data)
    return found.hexdigest()[:16]


def _checked(entry: str, data: "Dataset", part: str, x: Any, y: Any) -> tuple[Any, Any]:
    """One part of someone's data with the dtypes we compute in, or a UserError."""
    import torch

    def refuse(what: str) -> UserError:
        at = defined(locate(entry, "data.entry"))
        return UserError(f"data.entry={entry}{f' at {at}' if at else ''}: {part}_{what}")

    for name, value in (("x", x), ("y", y)):
        if not isinstance(value, torch.Tensor):
            hint = ": use torch.from_numpy" if type(value).__module__ == "numpy" else ""
            raise refuse(f"{name} must be a tensor, given {kind(value)}{hint}")
    if x.ndim not in (3, 4):
        raise refuse(
            f"x must be a tensor of shape (n, C, H, W), sequences (n, F + 1, T); given "
            f"{tuple(x.shape)}"
        )
    if _channels_last(x):
        raise refuse(
            f"x has shape {tuple(x.shape)}, which looks like (n, H, W, C); channels come first: "
            "use x.permute(0, 3, 1, 2)"
        )
    if x.shape[1:] != data.train_x.shape[1:]:
        raise refuse(
            f"x has examples of shape {tuple(x.shape[1:])}, train_x of "
            f"{tuple(data.train_x.shape[1:])}: they must agree"
        )
    if x.ndim == 3:
        return _checked_sequences(refuse, data, x, y)
    if y.shape != x.shape[:1] or not len(y):
        raise refuse(
            f"y must be one label for each of at least one image ({len(x)}), given {tuple(y.shape)}"
        )
    if y.is_floating_point() or y.min() < 0 or y.max() >= data.num_classes:
        raise refuse(
            f"y must be whole numbers from 0 to {data.num_classes - 1}, given {y.dtype} from "
            f"{y.min().item()} to {y.max().item()}"
        )
    if not torch.isfinite(x).all():
        raise refuse("x holds NaN or infinity")
    return x.to(torch.float32).contiguous(), y.to(torch.int64)


def _channels_last(x: Any) -> bool:
    """Whether images (n, H, W, C) were given; (n, C, 3, H) for C channels are no such thing."""
    _, first, second, last = x.shape if x.ndim == 4 else (0, 0, 0, 0)
    return (last in (3, 4) and min(first, second) > 4) or (last == 1 and first == second > 4)


def _checked_sequences(refuse: Any, data: "Dataset", x: Any, y: Any) -> tuple[Any, Any]:
    """The same for sequences with masks, or tokens."""
    import torch

    n, channels, steps = x.shape
    if y.shape != (n, steps) or y.is_floating_point() or not n:
        raise refuse(
            f"y must be whole numbers of shape ({n}, {steps}): a label for each step of at least "
            f"one sequence, {IGNORED} where nothing is asked; given {y.dtype} {tuple(y.shape)}"
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
