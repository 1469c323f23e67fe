"""Parts of one's own: a function named as `package.module:function`, checked at once."""

import hashlib
import importlib
import inspect
import os
import sys
from collections.abc import Callable
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bnstudy.errors import UserError

if TYPE_CHECKING:
    from bnstudy.config import DataConfig
    from bnstudy.data import Dataset


def locate(entry: str, key: str) -> Callable[..., Any]:
    """The function that an entry names; `key` is the setting that messages speak of.

    Modules are looked for in the working directory, too. Raises UserError when the entry is not
    of the form `package.module:function`, cannot be imported, or is not callable.
    """
    module_name, _, name = entry.partition(":")
    if not module_name or not name:
        raise UserError(f"{key} must look like package.module:function, not '{entry}'")
    if os.getcwd() not in sys.path and "" not in sys.path:
        sys.path.append(os.getcwd())  # a console script does not have it, a person expects it
    importlib.invalidate_caches()  # the module may have been written after the first look
    try:
        module = importlib.import_module(module_name)
    except Exception as e:  # anything can go wrong in a module that is not ours
        raise UserError(
            f"{key}={entry}: importing '{module_name}' failed ({type(e).__name__}: {e}). It is "
            f"looked for in the working directory and among the installed packages."
        ) from e
    if not hasattr(module, name):
        near = get_close_matches(name, dir(module), n=1)
        hint = f" Did you mean '{near[0]}'?" if near else ""
        raise UserError(f"{key}={entry}: the module '{module_name}' has no '{name}'.{hint}")
    function = getattr(module, name)
    if not callable(function):
        raise UserError(f"{key}={entry} is a {type(function).__name__}, not a function")
    return function


def source_hash(entry: str, key: str) -> str:
    """Hash of the file in which an entry is defined: another source is another experiment.

    The whole file counts, so that helpers beside the function count; what it imports does not.
    """
    file = inspect.getsourcefile(inspect.unwrap(locate(entry, key)))
    if file is None:
        raise UserError(f"{key}={entry}: its source cannot be read; define it in a .py file")
    return hashlib.sha256(Path(file).read_bytes()).hexdigest()[:16]


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
