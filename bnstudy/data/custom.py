"""Data of one's own: an entry that returns a Dataset, checked at once."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from bnstudy.entry import locate
from bnstudy.errors import UserError

if TYPE_CHECKING:
    from bnstudy.config import DataConfig
    from bnstudy.data import Dataset


def load(cfg: "DataConfig", cache_dir: Path | None = None) -> "Dataset":
    """Data of one's own: `entry` is called with the DataConfig and returns a raw Dataset."""
    from bnstudy.data import Dataset

    data = locate(cfg.entry, "data.entry")(cfg)
    if not isinstance(data, Dataset):
        raise UserError(
            f"data.entry={cfg.entry} returned a {type(data).__name__}; it must return a "
            "bnstudy.data.Dataset"
        )
    return data.with_parts(lambda part, x, y: _checked(cfg.entry, data, part, x, y))


def _checked(entry: str, data: "Dataset", part: str, x: Any, y: Any) -> tuple[Any, Any]:
    """One part of someone's data with the dtypes we compute in, or a UserError."""
    import torch

    def refuse(what: str) -> UserError:
        return UserError(f"data.entry={entry}: {part}_{what}")

    if not isinstance(x, torch.Tensor) or x.ndim != 4:
        given = tuple(x.shape) if hasattr(x, "shape") else type(x).__name__
        raise refuse(f"x must be a tensor of shape (n, C, H, W), given {given}")
    if x.shape[1:] != data.train_x.shape[1:]:
        raise refuse(
            f"x has examples of shape {tuple(x.shape[1:])}, train_x of "
            f"{tuple(data.train_x.shape[1:])}: they must agree"
        )
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
