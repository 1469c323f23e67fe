"""Cells as runs of W&B while they train: a run each, with the course of every seed."""

import contextlib
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from bnstudy.config import Config, TrackerConfig, digest
from bnstudy.tracking import session

AXES = ("step", "epoch", "examples")


class Mirror:
    """The cells of a stack in W&B, a run each, from the first step to the last record.

    A context manager: an exception inside it ends the runs with exit code 1, so that W&B calls
    them failed. `summaries`, set before it closes, are the final metrics of the runs by address.

    W&B works in a thread beside the training, in the order in which it is told: its import and its
    first run take as long as a small network. `status` waits for it, so what reads that before it
    stores a record has a mirror for each record.
    """

    def __init__(
        self,
        settings: TrackerConfig,
        folder: Path | str,
        group: str,
        tags: Iterable[str],
        configs: Sequence[Config],
        about: Mapping[str, Any] | None = None,
        say: Callable[[str], None] | None = None,
    ) -> None:
        """`configs` are the stack's networks; `about` joins their settings in the runs' configs:
        the command and the like. The rest as `Tracker`.
        """
        self.settings, self.about = settings, dict(about or {})
        self.configs, self.summaries = configs, dict[str, Mapping[str, Any]]()
        self.cells: dict[str, list[Config]] = {}
        for config in configs:
            self.cells.setdefault(config.cell, []).append(config)
        tags = list(tags)
        self._told: list[Future[None]] = []
        self.trackers = {
            cell: Tracker(
                settings, folder, group, tags, [c.seed for c in members], job_type(members[0]), say
            )
            for cell, members in self.cells.items()
        }

    @property
    def status(self) -> str:
        """'disabled', 'mirrored', 'kept offline: <reason>' or 'failed: <reason>', after all that
        was told; of several cells the worst.
        """
        for done in self._told:
            done.result()
        found = [tracker.status for tracker in self.trackers.values()]
        bad = [s for kind in (session.FAILED, session.KEPT) for s in found if s.startswith(kind)]
        return [*bad, *found][0]

    def __enter__(self) -> "Mirror":
        for cell, members in self.cells.items():
            part = digest(sorted(c.address for c in members))
            config = {**described(members), **self.about}
            self._tell(self.trackers[cell].start, cell, part, config, members[0].label)
        return self

    def _tell(self, what: Callable[..., None], *arguments: Any) -> None:
        if self.settings.mode != "disabled":
            self._told.append(_beside().submit(what, *arguments))

    def log(self, configs: Sequence[Config], rows: Sequence[Mapping[str, Any]]) -> None:
        """One evaluation of some of the networks: a row for each of their configs."""
        for cell, tracker in self.trackers.items():
            own = [row for c, row in zip(configs, rows, strict=True) if c.cell == cell]
            if own:
                self._tell(tracker.log, own)

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._tell(self._finish, 0 if kind is None else 1)
        if kind is not None:
            wait(self._told)  # the process may end at once

    def _finish(self, exit_code: int) -> None:
        """Close all runs, at once where a server may let each of them wait for its timeout."""
        with ThreadPoolExecutor(len(self.cells) if self.settings.mode == "online" else 1) as pool:
            for cell, members in self.cells.items():
                final = {c.seed: self.summaries[c.address] for c in members
                         if c.address in self.summaries}  # fmt: skip
                pool.submit(self.trackers[cell].finish, final, exit_code)


@cache
def _beside() -> ThreadPoolExecutor:
    """The one thread of this process that talks to W&B."""
    return ThreadPoolExecutor(1, thread_name_prefix="wandb")


class Tracker:
    """One cell's mirror: `start`, `log` after each evaluation, `finish`; none of them raises.

    `status` is 'disabled', 'mirrored', 'kept offline: <reason>' (for `bnstudy sync`, where a server
    takes no runs) or 'failed: <reason>'. In W&B the cell is one run with
    the id <cell>-<seeds>-<attempt>-<random>: metrics `seed_3/test_error` of each seed against
    `seed_3/step`, and `test_error`, the mean over all seeds, against `step`. Seeds that train one
    after the other are logged as they come; their mean follows when the last of them gets there.
    An id that is used twice is two histories in one: attempts are counted by the runs found in
    `folder`, and the random part keeps those apart that count at once, or in other folders.
    """

    def __init__(
        self,
        settings: TrackerConfig,
        folder: Path | str,
        group: str,
        tags: Iterable[str] = (),
        seeds: Iterable[int] = (),
        job_type: str = "cell",
        say: Callable[[str], None] | None = None,
    ) -> None:
        """Runs go to `folder`/wandb, also when online; `group` is the study. Writes nothing yet.

        `seeds` are all that will be logged: a mean is of all of them. `say` is told of trouble, in
        the same words each time (default: stderr).
        """
        self.settings, self.folder = settings, Path(folder).absolute()
        self.group, self.tags, self.job_type = group, list(tags), job_type
        self.seeds = frozenset(seeds)
        self.status = "disabled" if settings.mode == "disabled" else "mirrored"
        self.say = say or (lambda text: print(text, file=sys.stderr))
        self._run: Any = None
        self._online = False
        self._waiting: dict[int, dict[int, Mapping[str, Any]]] = {}  # step -> seed -> row

    def start(self, cell: str, part: str, config: Mapping[str, Any], name: str) -> None:
        """Opens the run.

        Args:
            cell: address of the cell.
            part: hash of the seeds that are mirrored here.
            config: the resolved configuration.
            name: what people read.
        """
        if self.status == "disabled":
            return
        if session.failure is not None:
            self.status = f"failed: {session.failure}"
            return
        self._guarded("starting a run", self._init, f"{cell}-{part[:6]}", config, name)

    def log(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """One evaluation: a row per seed with `seed`, `step`, `epoch`, `examples` and metrics."""
        if self._run is not None:
            self._guarded("logging", self._log, list(rows))

    def finish(
        self, summaries: Mapping[int, Mapping[str, Any]] | None = None, exit_code: int = 0
    ) -> None:
        """Closes the run; `summaries` are the final metrics by seed."""
        run, self._run = self._run, None
        if run is not None:
            self._guarded("finishing a run", self._close, run, summaries or {}, exit_code)

    def _guarded(self, doing: str, function: Callable[..., None], *args: Any) -> None:
        """Calls, and turns whatever goes wrong into the status."""
        try:
            function(*args)
        except Exception as e:  # of a library and a network that must not matter
            self._run = None
            reason = session.reason(e)
            if self._online and isinstance(e, TimeoutError):  # all of it is in the run's folder
                self._keep(session.lose(f"{doing}: {reason}"))
                return
            self.status = session.failed(f"{doing}: {reason}")
            self.say(
                f"W&B failed while {doing} ({reason}). Training goes on without it and the records "
                "are complete; tracker.mode=disabled leaves it out."
            )
            if isinstance(e, ConnectionError) and "wandb" in sys.modules:
                with contextlib.suppress(Exception):  # its process is dead; at exit it would say so
                    sys.modules["wandb"].teardown()

    def _keep(self, status: str) -> None:
        """A server that takes no runs; what it misses is here."""
        self.status = status
        self.say(
            f"W&B: {status.removeprefix(session.KEPT)}. Runs are kept offline and the records are "
            "complete; `bnstudy sync` pushes the runs, tracker.mode=offline never asks a server."
        )

    def _init(self, prefix: str, config: Mapping[str, Any], name: str) -> None:
        asked = session.lost is None
        self._run = session.opened(
            self.settings,
            self.folder,
            id=f"{prefix}-{self._attempt(prefix)}",
            name=name,
            group=self.group,
            job_type=self.job_type,
            tags=self.tags,
            config=dict(config),
        )
        if self.settings.mode == "online" and session.lost is not None:
            status = f"{session.KEPT}{session.lost}"
            if asked:
                self._keep(status)
            self.status = status
        else:
            self._online = self.settings.mode == "online"
        self._run.define_metric("step")
        self._run.define_metric("*", step_metric="step")
        for seed in sorted(self.seeds):
            self._run.define_metric(f"seed_{seed}/step")
            self._run.define_metric(f"seed_{seed}/*", step_metric=f"seed_{seed}/step")

    def _log(self, rows: list[Mapping[str, Any]]) -> None:
        values = {k: v for row in rows for k, v in of_seed(row).items()}
        for row in rows:
            self._waiting.setdefault(row["step"], {})[row["seed"]] = row
        whole = sorted(step for step, there in self._waiting.items() if there.keys() >= self.seeds)
        for step in whole:
            there = self._waiting.pop(step)
            axes = {k: v for k, v in next(iter(there.values())).items() if k in AXES}
            self._run.log({**axes, **values, **means(there.values())})
            values = {}
        if values:
            self._run.log(values)

    def _close(self, run: Any, summaries: Mapping[int, Mapping[str, Any]], exit_code: int) -> None:
        for seed, row in summaries.items():
            run.summary.update(of_seed({**row, "seed": seed}))
        if summaries and summaries.keys() >= self.seeds:
            run.summary.update(means(summaries.values()))
        session.closed(run, exit_code, self._online)

    def _attempt(self, prefix: str) -> int:
        """1 + how often these seeds of the cell were mirrored from here before."""
        return 1 + sum(1 for _ in (self.folder / "wandb").glob(f"*run-*-{prefix}-*"))


def of_seed(row: Mapping[str, Any]) -> dict[str, float]:
    """A row's numbers as `seed_3/test_error`; what has no number (None) is left out."""
    return {
        f"seed_{row['seed']}/{key}": value
        for key, value in row.items()
        if key == "step" or (key not in ("seed", *AXES) and isinstance(value, int | float))
    }


def means(rows: Iterable[Mapping[str, Any]]) -> dict[str, float]:
    """Mean of each metric over the rows that have a number for it; NaN makes the mean NaN."""
    values: dict[str, list[float]] = {}
    for row in rows:
        for key, value in row.items():
            if key not in ("seed", *AXES) and isinstance(value, int | float):
                values.setdefault(key, []).append(value)
    return {key: sum(v) / len(v) for key, v in values.items()}


def described(members: Sequence[Config]) -> dict[str, Any]:
    """A cell's config: all settings, defaults too, without the places of this machine."""
    settings = _settings(members[0])
    del settings["seed"]
    return {**settings, "cell": members[0].cell, "seeds": [c.seed for c in members]}


def _settings(part: BaseModel) -> dict[str, Any]:
    found = {}
    for name, field in type(part).model_fields.items():
        value, extra = getattr(part, name), field.json_schema_extra
        if not (isinstance(extra, dict) and extra.get("machine")):
            found[name] = _settings(value) if isinstance(value, BaseModel) else value
    return found


def job_type(config: Config) -> str:
    """What a run is for: a cell of a grid, or a pilot, which never sees the test part."""
    return "pilot" if config.data.test_part == "validation" else "cell"
