"""Stacks mirrored to Weights & Biases while they train: offline by default, never in the way.

The store is what was measured; this is a view of it. Whatever goes wrong here is caught, said once
on stderr, and becomes the tracker's status; W&B is then left alone for the rest of the process,
because a dead server would cost its timeout again for every stack.
"""

import contextlib
import os
import sys
from collections.abc import Callable, Iterable, Mapping
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
AXES = ("step", "epoch", "examples")

_failure: str | None = None  # of W&B in this process


class Tracker:
    """One stack's mirror: `start`, `log` after each evaluation, `finish`; none of them raises.

    `status` is 'disabled', 'mirrored' or 'failed: <reason>'. In W&B the stack is one run with
    the id <cell>-<stack>-<attempt>: metrics `seed_3/test_error` of each seed and `test_error`,
    their mean, against `step`. An attempt is counted up from the runs found in `folder`, since an
    id that is used twice is two histories in one.
    """

    def __init__(
        self, settings: TrackerConfig, folder: Path | str, group: str, tags: Iterable[str] = ()
    ) -> None:
        """Runs go to `folder`/wandb, also when online; `group` is the study. Writes nothing yet."""
        self.settings, self.folder = settings, Path(folder).absolute()
        self.group, self.tags = group, [t[:64] for t in tags if t]  # W&B refuses longer ones
        self.status = "disabled" if settings.mode == "disabled" else "mirrored"
        self._run: Any = None

    def start(self, cell: str, stack: str, config: Mapping[str, Any], name: str) -> None:
        """Opens the run; `config` is the resolved configuration, `name` what people read."""
        if self.status == "disabled":
            return
        if _failure is not None:
            self.status = f"failed: {_failure}"
            return
        self._guarded("starting a run", self._init, f"{cell}-{stack[:6]}", config, name)

    def log(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """One evaluation: a row per seed with `seed`, `step`, `epoch`, `examples` and metrics."""
        if self._run is not None:
            self._guarded("logging", _log, self._run, list(rows))

    def finish(
        self, summaries: Mapping[int, Mapping[str, Any]] | None = None, exit_code: int = 0
    ) -> None:
        """Closes the run; `summaries` are the final metrics by seed."""
        run, self._run = self._run, None
        if run is not None:
            self._guarded("finishing a run", _close, run, summaries or {}, exit_code)

    def _guarded(self, doing: str, function: Callable[..., None], *args: Any) -> None:
        """Calls, and turns whatever goes wrong into the status."""
        global _failure
        try:
            function(*args)
        except Exception as e:  # of a library and a network that must not matter
            self._run = None
            reason = (str(e).strip() or type(e).__name__).splitlines()[0]
            _failure = f"{doing}: {reason}"
            self.status = f"failed: {_failure}"
            print(
                f"W&B failed while {doing} ({reason}). Training goes on without it and the records "
                "are complete; tracker.mode=disabled leaves it out.",
                file=sys.stderr,
            )
            if isinstance(e, ConnectionError) and "wandb" in sys.modules:
                with contextlib.suppress(Exception):  # its process is dead; at exit it would say so
                    sys.modules["wandb"].teardown()

    def _init(self, prefix: str, config: Mapping[str, Any], name: str) -> None:
        mode = self.settings.mode
        self.folder.mkdir(parents=True, exist_ok=True)
        if not os.access(self.folder, os.W_OK):  # W&B would quietly write to /tmp
            raise PermissionError(f"{self.folder} cannot be written")
        for variable, value in {
            "WANDB_CACHE_DIR": str(self.folder / "cache"),
            "WANDB_DATA_DIR": str(self.folder / "data"),
            "WANDB_ERROR_REPORTING": "false",  # offline means no network
            "WANDB_SILENT": "true",
        }.items():
            os.environ.setdefault(variable, value)
        import wandb  # 1 s, and again as much for the first run of a process

        if mode == "online" and not wandb.login(prompt=False, verify=False):
            raise RuntimeError("no API key; `wandb login` keeps one, or set WANDB_API_KEY")
        timeouts = {"init_timeout": INIT_TIMEOUT, "finish_timeout": FINISH_TIMEOUT}
        known = type(wandb.Settings()).model_fields
        settings = {k: v for k, v in {**LEAN, **timeouts}.items() if k in known}
        self._run = wandb.init(
            project=self.settings.project,
            entity=self.settings.entity,
            id=f"{prefix}-{self._attempt(prefix)}",
            name=name,
            group=self.group[:128],
            tags=self.tags,
            config=dict(config),
            mode=mode,
            dir=str(self.folder),
            reinit="create_new",  # a run of the caller's own stays untouched
            settings=wandb.Settings(**settings),
        )
        self._run.define_metric("step")
        self._run.define_metric("*", step_metric="step")

    def _attempt(self, prefix: str) -> int:
        """1 + how often this stack was mirrored from here before."""
        return 1 + sum(1 for _ in (self.folder / "wandb").glob(f"*run-*-{prefix}-*"))


def per_seed(rows: Mapping[int, Mapping[str, Any]]) -> dict[str, float]:
    """`seed_3/test_error` for each seed and metric, and `test_error`, the mean over seeds.

    A seed that has no number for a metric (None) is left out; NaN makes the mean NaN.
    """
    values: dict[str, list[float]] = {}
    flat = {}
    for seed, row in rows.items():
        for key, value in row.items():
            if key not in ("seed", *AXES) and isinstance(value, int | float):
                flat[f"seed_{seed}/{key}"] = value
                values.setdefault(key, []).append(value)
    return {**flat, **{key: sum(v) / len(v) for key, v in values.items()}}


def _log(run: Any, rows: list[Mapping[str, Any]]) -> None:
    axes = {k: v for row in rows for k, v in row.items() if k in AXES}
    run.log({**axes, **per_seed({row["seed"]: row for row in rows})})


def _close(run: Any, summaries: Mapping[int, Mapping[str, Any]], exit_code: int) -> None:
    run.summary.update(per_seed(summaries))
    run.finish(exit_code=exit_code)
