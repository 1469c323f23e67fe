"""bnstudy from Python: the table of runs, trained networks, studies and comparisons.

The other front door beside the command line: what it prints is what a command would print, a
user's mistake is a `bnstudy.errors.UserError`, and nothing ends the process.
"""

import json
import os
import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bnstudy.errors import UserError

if TYPE_CHECKING:
    import pandas as pd
    from torch import nn

    from bnstudy.store import Store


@dataclass(frozen=True)
class StudyResult:
    """What a study found."""

    table: "pd.DataFrame"  # one row per run of the grid that was judged
    verdicts: list[dict[str, Any]]  # one per claim: text, verdict, mean, low, high, reasons, ...
    folder: Path  # of the figure, table.csv, claims.json and study.json
    status: str  # of the verdicts: confirmatory or exploratory
    status_reason: str

    @property
    def figure(self) -> Path:
        """The figure as PNG, as wide as a page; figure.svg and figure.pdf are beside it.

        `bnstudy figure FOLDER --look slide` redraws it for a talk, `--look column` for a paper.
        """
        return self.folder / "figure.png"


def table(results_dir: str | Path = "results", **filters: Any) -> "pd.DataFrame":
    """The runs of a results folder, one row each: configuration, metrics, provenance.

    Args:
        results_dir: as on the command line.
        filters: column -> the value it must have, or a list of values; None is an unset one. A
            column is named in full (`**{"norm.name": "group"}`), as a group (`norm="group"`), or
            by its last name where only one is called so (`batch_size=[2, 32]`).

    Raises:
        UserError: no such folder, an unknown column, filters that leave nothing.
    """
    from bnstudy.store.table import select

    wanted = {
        name: list(value) if isinstance(value, list | tuple | set) else [value]
        for name, value in filters.items()
    }
    return select(_store(results_dir).table(), wanted)


def load(
    address: str, results_dir: str | Path = "results", data_root: str | Path | None = None
) -> "nn.Module":
    """A trained network with its final weights, in evaluation mode, on the CPU.

    Args:
        address: of a run, or of a cell (the network of its first seed); its beginning is enough.
        results_dir: as on the command line.
        data_root: the folder of the data, which say the shape of an input; default: the variable
            BNSTUDY_DATA.

    Raises:
        UserError: an unknown or ambiguous address; weights that were not kept (`bnstudy train`
            keeps them, studies do with save_weights=true).
    """
    import torch

    from bnstudy import data
    from bnstudy.config import Config
    from bnstudy.work.build import build

    store = _store(results_dir)
    record = min((store.get(a) for a in store.runs(address)), key=lambda r: r["seed"])
    path = store.weights_path(record["address"])
    config = Config.model_validate(record["config"])
    if data_root is not None:
        own = config.data.model_copy(update={"root": str(Path(data_root).expanduser())})
        config = config.model_copy(update={"data": own})
    dataset = data.load(config.data, store.root / "cache", config.seed)
    net = build(config, tuple(dataset.shape), dataset.num_classes)
    net.load_state_dict(torch.load(path, map_location="cpu")[record["address"]])
    return net.eval()


def run_study(
    name: str,
    *overrides: str,
    results_dir: str | Path = "results",
    config_dir: str | Path | Sequence[str | Path] = (),
) -> StudyResult:
    """Run a study as `bnstudy study NAME` does: train what is missing, draw, judge.

    The plan and progress are printed. What was trained before is not trained again.

    Args:
        name: of a study; `bnstudy study` lists them.
        overrides: as on the command line: "scale=smoke", "norm=batch,group", "workers=2".
        results_dir: where records and results go.
        config_dir: a folder, or several, of configs of your own.

    Raises:
        UserError: whatever the command would refuse; no run of the study is in the store.
        KeyboardInterrupt: it was interrupted; what is complete is kept.
    """
    folders = [config_dir] if isinstance(config_dir, str | Path) else config_dir
    with _settings_kept():
        from bnstudy.cli import execute, looks, tuning
        from bnstudy.config.compose import hydra_session

        options = [word for folder in folders for word in ("--config-dir", str(folder))]
        words = [*overrides, f"results_dir={results_dir}"]
        command = shlex.join(["bnstudy", "study", name, *options, *words])
        with hydra_session([str(folder) for folder in folders]) as composer:
            request = composer.request(words, study=composer.study(name))
            request = replace(request, command=command)
            judges = execute.judges_of([request])
            try:
                request = tuning.settled(request, composer, judges)
            except tuning.Unfinished as stopped:
                if stopped.exit_code > 128:
                    raise KeyboardInterrupt from None
                raise UserError("pilots are missing; the same call trains them") from None
            train = looks.study if request.looks else execute.train_missing
            result = train(request, composer, False, execute.judges_of([request]))
            assert result is not None  # only a dry run has none
            if result.signal is not None:
                raise KeyboardInterrupt
            verdicts, folder = execute.finish_study(request, result.plan)
            table = execute.table_of(request, result.plan)
            judged = json.loads((folder / "study.json").read_text())
            return StudyResult(
                table[table["seed"].isin(judged["seeds"])].reset_index(drop=True),
                verdicts,
                folder,
                judged["status"],
                judged["status_reason"],
            )


def compare(
    frame: "pd.DataFrame",
    arms: str | Mapping[str, Sequence[Any]] = "norm.name",
    across: Sequence[str] = (),
    metric: str = "test_error",
    level: float = 0.95,
) -> "pd.DataFrame":
    """Means, intervals and paired differences to the first arm, as `bnstudy compare` prints them.

    Args:
        frame: one row per run, as `table` gives it.
        arms: the column whose values are the arms (the first one is the reference), or
            {column: values in the order to show}.
        across: further columns that vary; arms are compared at each combination of their values.
        metric: a column; numbers stay in its unit.
        level: of the Student-t intervals of means; differences are tested at 1 - level.

    Returns:
        One row per arm and combination: n, mean, low, high, difference, p, p_holm, best, ...; see
        `bnstudy.comparison.compare`. `bnstudy.comparison.to_markdown`, `to_latex` and `to_text`
        print it.

    Raises:
        UserError: an unknown column or metric; a further column varies.
    """
    from bnstudy.comparison import compare as compared

    axes = dict(arms) if isinstance(arms, Mapping) else {arms: _values(frame, arms)}
    axes |= {column: _values(frame, column) for column in across}
    return compared(frame, axes, metric, level)


def _values(frame: "pd.DataFrame", column: str) -> list[Any]:
    """The values of a column in order of appearance; none of a column that the table lacks."""
    return list(frame[column].unique()) if column in frame else []


def _store(results_dir: str | Path) -> "Store":
    """The store of a results folder that is there."""
    from bnstudy.store import Store

    folder = Path(results_dir).expanduser()
    if not folder.is_dir():
        raise UserError(f"results_dir={folder}: there is no such folder")
    return Store(folder / "runs")


@contextmanager
def _settings_kept() -> Iterator[None]:
    """Whoever calls keeps the environment, threads and torch settings that a command would set."""
    import torch

    environment, threads = dict(os.environ), torch.get_num_threads()
    mode = torch.get_deterministic_debug_mode()
    try:
        yield
    finally:
        sys.stdout.flush()
        torch.set_num_threads(threads)
        torch.set_deterministic_debug_mode(mode)
        for name in os.environ.keys() - environment.keys():
            del os.environ[name]
        os.environ.update(environment)
