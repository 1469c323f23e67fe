"""The results of a study: table, figure, verdicts and description in one folder."""

import importlib.util
import json
import platform
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from bnstudy import __version__, entry
from bnstudy.atomic import write_atomically, write_json
from bnstudy.config import HERE, Config, StudyConfig, digest
from bnstudy.errors import UserError, count

if TYPE_CHECKING:
    import pandas as pd

INTERVAL = "95 % Student-t"
FILES = ("table.csv", "figure.svg", "figure.pdf", "figure.png", "claims.json", "study.json")
FUNCTIONS = ("shape", "figure", "claims")  # of a study's module
STAMP = "complete"  # holds the hash of what the files beside it were made from
STATED = {"name", "title", "claim", "source", "rule", "cost", "expected", "notes"}


def module(study: StudyConfig) -> ModuleType:
    """The figure and claims of a study; a module of the user's may lie in the working directory.

    Raises UserError when the module does not import or lacks one of the three functions.
    """
    name = study.entry or f"bnstudy.studies.{study.name}"
    if not study.entry and importlib.util.find_spec(name) is None:
        raise UserError(
            f"study {study.name}: its YAML does not say where its figure and claims are: add a "
            "line like `entry: my_study`, a module with the functions shape, figure and claims"
        )
    for function in FUNCTIONS:
        try:
            entry.locate(f"{name}:{function}", "entry")
        except UserError as error:
            raise UserError(f"study {study.name}: {error}") from None
    return sys.modules[name]


def results_of(
    study: StudyConfig,
    records: Mapping[str, str],
    table: "Callable[[], pd.DataFrame]",
    folder: Path,
    *,
    scale: str,
    cells: Sequence[Config],
    planned: int,
    command: str,
) -> list[dict[str, Any]]:
    """The verdicts of a study as plain dicts; writes FILES unless they are there and still hold.

    They hold while the study, the code that draws and judges it and the records behind the table
    are those that they were made from. Results of an unfinished grid are written every time.

    study:   as its YAML states it.
    records: address -> checksum of each run that the store holds.
    table:   gives their table, one row per run; asked only when something is to be written.
    cells:   of the grid, for the comparison rule in the caption.
    planned: number of runs of the whole grid.
    command: the command line, for the caption.
    Raises UserError when the store holds no run, or too few for the study's figure and claims.
    """
    if not records:
        raise UserError("no run of this study is in the store: no figure, no verdict")
    stamp, made_from = folder / STAMP, digest([sources(study), sorted(records.items())])
    held = stamp.exists() and stamp.read_text() == made_from
    if not held or not all((folder / name).exists() for name in FILES):
        stamp.unlink(missing_ok=True)
        try:
            _write(study, table(), folder, scale, rule_of(cells), command)
        except (ArithmeticError, LookupError, ValueError) as error:
            if len(records) == planned:
                raise
            raise UserError(
                f"study {study.name}: the {count(len(records), 'run')} in the store, of {planned}, "
                "are too few for its figure and claims; the same command trains the others"
            ) from error
        if len(records) == planned:
            stamp.write_text(made_from)
    verdicts: list[dict[str, Any]] = json.loads((folder / "claims.json").read_text())
    return verdicts


def lines(verdicts: Sequence[dict[str, Any]]) -> list[str]:
    """Verdicts as text: a line for each claim, and one for each reason below it."""
    found = []
    for verdict in verdicts:
        primary = "primary  " if verdict["primary"] else "         "
        found.append(
            f"{verdict['verdict']:<13}{primary}{verdict['text']} "
            f"[{_signed(verdict['mean'])}, {100 * verdict['level']:.0f} % interval "
            f"{_signed(verdict['low'])} to {_signed(verdict['high'])} {verdict['unit']}]"
        )
        found += [f"{'':<22}{reason}" for reason in verdict["reasons"]]
    return found


def rule_of(cells: Sequence[Config]) -> str:
    """The comparison rule of a grid in words: what is equal, and how lr depends on the batch."""
    rules = sorted({f"{c.train.rule}, lr {c.optimizer.lr_rule}" for c in cells})
    return " / ".join(rules).replace("lr none", "equal lr").replace("lr linear", "lr ~ batch")


def sources(study: StudyConfig) -> str:
    """Hash of the study as stated and of all code that draws and judges it."""
    own = HERE / "studies" / f"{study.name}.py"
    if study.entry:
        own = Path(module(study).__file__ or own)
    shared = [HERE / "studies" / f"{name}.py" for name in ("kit", "drawing", "results")]
    rooms = [path for room in ("figures", "stats") for path in sorted((HERE / room).glob("*.py"))]
    texts = [path.read_text() for path in (own, *shared, *rooms) if path.exists()]
    return digest([study.model_dump(mode="json"), *texts])


def _write(
    study: StudyConfig, table: "pd.DataFrame", folder: Path, scale: str, rule: str, command: str
) -> None:
    import matplotlib

    from bnstudy import figures, stats
    from bnstudy.stats.verdicts import plain

    found = module(study)
    folder.mkdir(parents=True, exist_ok=True)
    verdicts = [verdict.to_dict() for verdict in stats.judge(found.claims(table))]
    with matplotlib.rc_context(figures.rc()):
        rows, columns = found.shape(table)
        figure, axes = figures.canvas(columns, rows)
        found.figure(table, axes)
        figures.save(figure, folder)
    seeds = sorted(int(seed) for seed in table["seed"].unique())
    diverged = int(table["diverged_at"].notna().sum())
    published = getattr(found, "PUBLISHED", {})
    write_atomically(folder / "table.csv", table.to_csv(index=False))
    write_json(folder / "claims.json", verdicts)
    description = {
        **study.model_dump(include=STATED),
        "scale": scale,
        "seeds": seeds,
        "n_runs": len(table),
        "diverged_runs": diverged,
        "command": command,
        "caption": figures.caption(len(seeds), INTERVAL, rule, command, diverged > 0),
        "created_with": {
            "bnstudy": __version__,
            "python": platform.python_version(),
            "torch": sorted(table["torch"].dropna().unique().tolist()),
        },
        "published": published if isinstance(published, dict) else published.to_dict(),
    }
    write_json(folder / "study.json", plain(description))


def _signed(value: float | None) -> str:
    """A number with its sign; ? when there is none."""
    return "?" if value is None else f"{value:+.2f}"
