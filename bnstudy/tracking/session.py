"""How a run of W&B is opened: lean, in a folder of our own, and within a time limit."""

import os
import shutil
import uuid
from pathlib import Path
from typing import Any, Literal

from bnstudy.config import TrackerConfig
from bnstudy.tracking import server
from bnstudy.tracking.environment import UNUSED, unset
from bnstudy.tracking.pushed import hold, release

INIT_TIMEOUT = 10.0  # seconds; W&B's own default waits for 90
FINISH_TIMEOUT = 10.0  # seconds; W&B's default is to wait without end
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
KEPT = "kept offline: "  # how the status of runs begins that a server did not take

failure: str | None = None  # of W&B in this process
lost: str | None = None  # why this process talks to no server any more


def failed(text: str) -> str:
    """The status of a failure; W&B is left alone from now on."""
    global failure
    failure = text
    return f"{FAILED}{text}"


def lose(text: str) -> str:
    """The status of runs that are kept for `bnstudy sync`; the server is left alone from now on."""
    global lost
    lost = text
    return f"{KEPT}{text}"


def reason(error: Exception) -> str:
    """An error in a line, without the API key."""
    return _hidden((str(error).strip() or type(error).__name__).splitlines()[0])


def opened(
    settings: TrackerConfig, folder: Path, *, id: str, group: str, tags: list[str], **run: Any
) -> Any:
    """A new run in `folder`/wandb, also when online; offline where the server takes none.

    Why it does not is in `lost` then. `run.offline` tells which kind it is.

    Args:
        id: how the run's id begins; a random part follows.
        run: what else `wandb.init` takes: name, job_type, config, notes.

    Raises:
        PermissionError: the folder cannot be written.
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

    timeouts = {"init_timeout": INIT_TIMEOUT, "finish_timeout": FINISH_TIMEOUT}
    known = type(wandb.Settings()).model_fields
    lean = {k: v for k, v in {**LEAN, **timeouts}.items() if k in known}

    def fresh() -> str:
        return f"{id}-{uuid.uuid4().hex[:6]}"

    def init(mode: Literal["online", "offline"], own: str) -> Any:
        made = wandb.init(
            id=own,
            project=settings.project,
            entity=settings.entity,
            group=group[:128],
            tags=[tag[:64] for tag in dict.fromkeys(tags) if tag],  # W&B refuses longer ones
            mode=mode,
            dir=str(folder),
            reinit="create_new",  # a run of the caller's own stays untouched
            settings=wandb.Settings(**lean),
            **run,
        )
        hold(Path(made.dir).parent)
        return made

    with unset(UNUSED):
        if settings.mode == "online" and lost is None:
            own = fresh()
            try:
                if not (refused := server.trouble(*server.credentials())):
                    return init("online", own)
                lose(_hidden(refused))
            except Exception as error:  # of a network that must not matter
                lose(reason(error))
                # nothing is in that run; W&B's process keeps its id, and refuses it from now on
                for begun in (folder / "wandb").glob(f"run-*-{own}"):
                    shutil.rmtree(begun, ignore_errors=True)
        return init("offline", fresh())


def closed(run: Any, exit_code: int, online: bool) -> None:
    """Finish a run. Raises TimeoutError where the server has not taken all of it in time."""
    folder = Path(run.dir).parent
    arrived = False
    try:
        run.finish(exit_code=exit_code)
        arrived = online
    finally:
        release(folder, arrived)


def _hidden(text: str) -> str:
    """A text without the API key."""
    key = os.environ.get("WANDB_API_KEY")
    return text.replace(key, "[API key]") if key else text
