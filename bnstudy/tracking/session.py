"""How a run of W&B is opened: lean, in a folder of our own, and within a time limit."""

import os
from pathlib import Path
from typing import Any

from bnstudy.config import TrackerConfig

INIT_TIMEOUT = 20.0  # seconds; without a network W&B's own default waits for 90
FINISH_TIMEOUT = 30.0  # seconds; W&B's default is to wait without end
# what W&B would do beside keeping our numbers: 0.2 s a run with it, 0.02 s without
LEAN = {
    "x_disable_stats": True,
    "x_disable_meta": True,
    "x_disable_machine_info": True,
    "console": "off",
    "disable_git": True,
    "disable_code": True,
    "x_save_requirements": False,
    "silent": True,
    # seconds; a killed run loses what was not flushed, by default everything of the last 15 s
    "x_transaction_log_flush_interval": 1.0,
    "finish_timeout_raises": True,
}

FAILED = "failed: "  # how the status of a failure begins

failure: str | None = None  # of W&B in this process


def failed(text: str) -> str:
    """The status of a failure; W&B is left alone from now on."""
    global failure
    failure = text
    return f"{FAILED}{text}"


def reason(error: Exception) -> str:
    """An error in a line."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def opened(
    settings: TrackerConfig, folder: Path, *, group: str, tags: list[str], **run: Any
) -> Any:
    """A new run in `folder`/wandb, also when online.

    Args:
        run: what else `wandb.init` takes: id, name, job_type, config, notes.

    Raises:
        PermissionError: the folder cannot be written.
        RuntimeError: online, and there is no API key.
        Exception: whatever W&B raises.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if not os.access(folder, os.W_OK):  # W&B would quietly write to /tmp
        raise PermissionError(f"{folder} cannot be written")
    for variable, value in {
        "WANDB_CACHE_DIR": str(folder / "cache"),
        "WANDB_DATA_DIR": str(folder / "data"),
        "WANDB_ERROR_REPORTING": "false",  # offline means no network
        "WANDB_SILENT": "true",
    }.items():
        os.environ.setdefault(variable, value)
    import wandb  # 1 s, and again as much for the first run of a process

    if settings.mode == "online" and not wandb.login(prompt=False, verify=False):
        raise RuntimeError("no API key; `wandb login` keeps one, or set WANDB_API_KEY")
    timeouts = {"init_timeout": INIT_TIMEOUT, "finish_timeout": FINISH_TIMEOUT}
    known = type(wandb.Settings()).model_fields
    lean = {k: v for k, v in {**LEAN, **timeouts}.items() if k in known}
    return wandb.init(
        project=settings.project,
        entity=settings.entity,
        group=group[:128],
        tags=[tag[:64] for tag in dict.fromkeys(tags) if tag],  # W&B refuses longer ones
        mode=settings.mode,
        dir=str(folder),
        reinit="create_new",  # a run of the caller's own stays untouched
        settings=wandb.Settings(**lean),
        **run,
    )
