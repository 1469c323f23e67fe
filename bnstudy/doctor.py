"""What this machine has, for `bnstudy doctor`."""

import importlib.util
import os
import shutil
import tempfile
from pathlib import Path

from bnstudy import data
from bnstudy.config import CONFIGS, DataConfig
from bnstudy.config.capabilities import DATA
from bnstudy.errors import UserError


def findings(results: Path) -> list[tuple[str, str]]:
    """(what, found) for everything that a run depends on."""
    import bnstudy

    compiler = next((p for p in ("g++", "clang++", "c++") if shutil.which(p)), None)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    found = [
        ("bnstudy", f"{bnstudy.__version__}, configs in {CONFIGS}"),
        *_torch(),
        ("cores", f"{cores}: as many workers, one thread each"),
        ("compiler", compiler or "none: everything works, eager instead of compiled steps"),
        ("results", _results(results)),
        ("W&B", _wandb()),
    ]
    for name in data.DATASETS:
        if name != "custom" and not DATA[name].folder:
            found.append((f"data={name}", _data(name)))
    return found


def _torch() -> list[tuple[str, str]]:
    if importlib.util.find_spec("torch") is None:
        return [("torch", "not installed: no training, the rest works (extra `train`)")]
    import torch
    import torchvision

    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return [
        ("torch", f"{torch.__version__}, torchvision {torchvision.__version__}"),
        ("device", ", ".join(gpus) or "cpu (torch sees no GPU)"),
    ]


def _results(results: Path) -> str:
    parent = next(p for p in (results, *results.absolute().parents) if p.exists())
    try:
        with tempfile.TemporaryFile(dir=parent):
            pass
    except OSError as error:
        return f"{results} cannot be written ({error.strerror}): use results_dir=DIR"
    free = shutil.disk_usage(parent).free / 1e9
    return f"{results} can be written, {free:.0f} GB free"


def _wandb() -> str:
    if importlib.util.find_spec("wandb") is None:
        return "not installed: runs are not mirrored"
    return "tracker.mode=offline by default: no account, no network"


def _data(name: str) -> str:
    try:
        data.resolve(DataConfig(name=name))
    except UserError as error:
        return f"not available: {str(error).splitlines()[0]}"
    return "available"
