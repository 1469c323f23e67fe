"""The results of a study: table, figure, verdicts and description in one folder."""

import hashlib
import importlib.util
import json
import platform
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import yaml

from bnstudy import __version__, entry
from bnstudy.atomic import write_atomically, write_json
from bnstudy.config import HERE, Config, StudyConfig, digest
from bnstudy.errors import UserError, count
from bnstudy.studies import sheets

if TYPE_CHECKING:
    import pandas as pd

    from bnstudy.stats import Verdict
    from bnstudy.studies.looks import Look

INTERVAL = "95 % Student-t"  # of the bars in figures
TESTS = "Intervals of claims: sign-flip tests of paired differences, inverted."
FILES = ("table.csv", "points.csv", "figure.svg", "figure.pdf", "figure.png", "claims.json",
         "study.json")  # fmt: skip
FUNCTIONS = ("headline", "claims")  # of a study's module; `details` may be a third
# code that draws and judges all studies
SHARED = ("kit", "words", "drawing", "looks", "pixels", "results", "sheets")
STAMP = "complete"  # holds the hash of what the files beside it were made from
OUTSIDE = ("hydra.", "tracker.", "data.root")  # settings of a command that are not of its grid
STATED = {
    "name",
    "group",
    "title",
    "claim",
    "source",
    "papers",
    "rule",
    "cost",
    "expected",
    "notes",
}


@dataclass(frozen=True)
class Protocol:
    """What was fixed for a study before its runs, and how its verdicts stand to it."""

    seeds: Sequence[int]  # of the grid, in the order in which looks take them
    looks: Sequence[int] = ()  # numbers of seeds after which to judge; empty: once, after all
    fixed: str = ""  # hash of claims, grid, tuning and looks as they are now
    registration: Path | None = None  # the file of the grid's registrations
    tuning: Path | None = None  # the file of the tuning choices
    standing: Callable[[Sequence[str]], tuple[str, str, str]] | None = None
    """When records were made -> (confirmatory or exploratory, why, what was registered)."""

    def stamp(self) -> list[Any]:
        """What results depend on."""
        files = [path.read_text() for path in (self.registration, self.tuning)
                 if path is not None and path.is_file()]  # fmt: skip
        return [list(self.seeds), list(self.looks), self.fixed, files]

    def stands(self, rows: "pd.DataFrame") -> tuple[str, str, str]:
        """How verdicts on these runs stand to the registration."""
        if self.standing is None:
            return "exploratory", "there is no registration", ""
        return self.standing([str(time) for time in rows["created"]])


def module(study: StudyConfig) -> ModuleType:
    """The figure and claims of a study; a module of the user's may lie in the working directory.

    It has `headline(table)`, a list of one to three `figures.Panel`, `claims(table)`, a list of
    `stats.Claim`, and perhaps `details(table)`, further panels. The table has one row per run.
    Raises UserError when the module does not import or lacks one of the two functions.
    """
    name = study.entry or f"bnstudy.studies.{study.name}"
    if not study.entry and importlib.util.find_spec(name) is None:
        raise UserError(
            f"study {study.name}: its YAML does not say where its figure and claims are: add a "
            "line like `entry: my_study`, a module with the functions headline and claims"
        )

    try:
        for function in FUNCTIONS:
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
    protocol: Protocol,
) -> list[dict[str, Any]]:
    """The verdicts of a study as plain dicts; writes its files unless they are there and hold.

    They hold while the study, the code that draws and judges it, the records behind the table and
    the registration are those that they were made from. Results of an unfinished grid are written
    every time. With looks they are those of the look that ends the sequence.

    study:    as its YAML states it.
    records:  address -> checksum of each run that the store holds.
    table:    gives their table, one row per run; asked only when something is to be written.
    cells:    of the grid, for the comparison rule in the caption.
    planned:  number of runs of the whole grid.
    command:  the command line that runs this study alone, for the caption and study.json.
    protocol: looks, registration and tuning.
    Raises UserError when the store holds no run, or too few for the study's figure and claims.
    """
    if not records:
        raise UserError("no run of this study is in the store: no figure, no verdict")
    stamp, made_from = (
        folder / STAMP,
        digest([sources(study), sorted(records.items()), protocol.stamp()]),
    )
    if not (stamp.is_file() and stamp.read_text() == _stamped(made_from, folder)):
        stamp.unlink(missing_ok=True)
        try:
            complete = _write(study, table(), folder, scale, cells, command, protocol)
        except (ArithmeticError, LookupError, ValueError) as error:
            if len(records) == planned:
                raise
            raise UserError(
                f"study {study.name}: the {count(len(records), 'run')} in the store, of {planned}, "
                "are too few for its figure and claims; the same command trains the others"
            ) from error
        if complete or len(records) == planned:
            write_atomically(stamp, _stamped(made_from, folder))
    verdicts: list[dict[str, Any]] = json.loads((folder / "claims.json").read_text())
    return verdicts


def lines(verdicts: Sequence[dict[str, Any]]) -> list[str]:
    """Verdicts as text: a line for each claim and each reason below it, and why exploratory."""
    found = []
    for verdict in verdicts:
        primary = "primary  " if verdict["primary"] else "         "
        status = f" {verdict['status']}" if verdict.get("status") else ""
        told = ": ".join(part for part in (verdict["text"], sheets.numbers(verdict)) if part)
        found.append(f"{verdict['verdict']:<13}{primary}{told}{status}")
        found += [f"{'':<22}{reason}" for reason in verdict["reasons"]]
    reasons = {v["status_reason"]: None for v in verdicts if v.get("status") == "exploratory"}
    return [*found, *(f"exploratory: {reason}" for reason in reasons)]


def rule_of(cells: Sequence[Config]) -> str:
    """The comparison rule of a grid in words: what is equal, and how lr depends on the batch."""
    rules = sorted({f"{c.train.rule}, lr {c.optimizer.lr_rule}" for c in cells})
    return " / ".join(rules).replace(", lr none", "").replace("lr linear", "lr ~ batch")


def changed(study: StudyConfig, command: str) -> list[str]:
    """The words of a command by which a grid is not the one that its study states."""
    axes = {axis for grid in study.scales.values() for axis in grid.axes}
    found = []
    for word in shlex.split(command):
        key, equals, _ = word.partition("=")
        own = key in axes or key == "seeds" or ("." in key and not key.startswith(OUTSIDE))
        if equals and own:
            found.append(word)
    return found


def sources(study: StudyConfig) -> str:
    """Hash of the study as stated and of all code that draws and judges it."""
    own = HERE / "studies" / f"{study.name}.py"
    if study.entry:
        own = Path(module(study).__file__ or own)
    shared = [HERE / "studies" / f"{name}.py" for name in SHARED]
    rooms = [path for room in ("figures", "stats") for path in sorted((HERE / room).glob("*.py"))]
    texts = [path.read_text() for path in (own, *shared, *rooms) if path.exists()]
    return digest([study.model_dump(mode="json"), *texts])


def judged(
    study: StudyConfig, table: "pd.DataFrame", cells: int, protocol: Protocol
) -> "list[Look]":
    """The looks that were taken at a study's table; `found` are their verdicts.

    Raises UserError when the first look lacks runs.
    """
    from bnstudy import stats
    from bnstudy.studies.looks import decided, replay

    claims = module(study).claims

    def judge(rows: "pd.DataFrame", level: float) -> "tuple[list[Verdict], bool]":
        verdicts = stats.judge(claims(rows), alpha=level)
        return verdicts, decided(verdicts)

    found = replay(table, cells, protocol.seeds, protocol.looks, judge)
    if not found:
        first = protocol.looks[0] * cells
        raise UserError(f"the first look needs {first} runs, and some of them are missing")
    return found


def _stamped(made_from: str, folder: Path) -> str:
    """What says that results are complete: what they were made from, and a hash of their files.

    Empty where a file is absent or unreadable: those with each figure that study.json describes.
    """
    try:
        stems = json.loads((folder / "study.json").read_text())["alt"]
        names = [*FILES, *(f"{stem}.{kind}" for stem in stems for kind in sheets.KINDS)]
        hashes = [hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in names]
    except (OSError, LookupError, TypeError, ValueError):
        return ""
    return f"{made_from} {digest(hashes)}"


def _write(
    study: StudyConfig,
    table: "pd.DataFrame",
    folder: Path,
    scale: str,
    cells: Sequence[Config],
    command: str,
    protocol: Protocol,
) -> bool:
    """Write all files of a study's results; whether looks have come to their end."""
    from bnstudy import figures, stats
    from bnstudy.stats.verdicts import plain

    found = module(study)
    looks = judged(study, table, len(cells), protocol) if protocol.looks else []
    if looks:
        table = looks[-1].rows
    verdicts = looks[-1].found if looks else stats.judge(found.claims(table))
    status, reason, registered = protocol.stands(table)
    standing = {"status": status, "status_reason": reason}
    folder.mkdir(parents=True, exist_ok=True)
    plainly = [{**v.to_dict(), **standing} for v in verdicts]
    level = looks[-1].level if looks else stats.ALPHA
    panels = sheets.panels_of(found, table, 1 - level)
    alt = sheets.write(panels, plainly, folder, study.title)
    seeds = sorted(int(seed) for seed in table["seed"].unique())
    diverged = int(table["diverged_at"].notna().sum())
    published = getattr(found, "PUBLISHED", {})
    caption = figures.caption(len(seeds), INTERVAL, rule_of(cells), command, diverged > 0)
    write_atomically(folder / "table.csv", table.to_csv(index=False))
    write_json(folder / "claims.json", plainly)
    failed = _failures(study, table, folder)
    other = changed(study, command)
    description = {
        **study.model_dump(include=STATED),
        "rule": "; changed here: ".join(filter(None, [study.rule, " ".join(other)])),
        "scale": scale,
        "seeds": seeds,
        "n_runs": len(table),
        "diverged_runs": diverged,
        "failed_runs": failed,
        "command": command,
        "coverage": stats.coverage.sentence(len(seeds), level, protocol.looks),
        "alt": alt,
        "caption": f"{caption} {TESTS} Verdicts are {status}: {reason}.",
        **standing,
        "registered": registered,
        "looks": _looked(looks),
        "power": {} if other else _power(study, scale),  # of the grid as it is stated
        "created_with": {
            "bnstudy": __version__,
            "python": platform.python_version(),
            "torch": sorted(table["torch"].dropna().unique().tolist()),
        },
        "published": published if isinstance(published, dict) else published.to_dict(),
    }
    write_json(folder / "study.json", plain(description))
    for name, path in {
        "registration.json": protocol.registration,
        "tuning.json": protocol.tuning,
    }.items():
        (folder / name).unlink(missing_ok=True)
        if path is not None and path.is_file():  # JSON is YAML
            write_json(folder / name, yaml.safe_load(path.read_text()))
    return bool(looks) and looks[-1].last


def _looked(looks: "Sequence[Look]") -> dict[str, Any]:
    """For study.json: the looks that were taken, and why there were no more."""
    if not looks:
        return {}
    taken = [
        {
            "look": look.number,
            "seeds": len(look.seeds),
            "level": look.level,
            "primary": next((v.verdict for v in look.found if v.primary), ""),
        }
        for look in looks
    ]
    last = looks[-1]
    return {"of": last.of, "taken": taken, "level": last.level, "stopped": last.stopped}


def _power(study: StudyConfig, scale: str) -> dict[str, Any]:
    """For study.json: what pilots said of the number of seeds, where the YAML has it."""
    grid = study.scales.get(scale)
    return grid.power.model_dump() if grid and grid.power else {}


def _failures(study: StudyConfig, table: "pd.DataFrame", folder: Path) -> list[str]:
    """Write failures.csv, how many runs of each cell failed; the cells where any did, in words.

    A network that is looked at before its training has not failed to train.
    """
    from bnstudy.studies import kit

    axes = dict.fromkeys(axis for grid in study.scales.values() for axis in grid.axes)
    by = [name for axis in axes for name in (axis, f"{axis}.name") if name in table] or ["cell"]
    found = kit.failures(table[table["steps"] > 0], by)
    write_atomically(folder / "failures.csv", found.to_csv(index=False))
    shown = [name for name in by if table[name].nunique(dropna=False) > 1]
    return [
        f"{_place(row, shown)}"
        f"{row['failed']} of {row['n']} runs ({100 * row['rate']:.0f} %, 95 % interval "
        f"{100 * row['low']:.0f} to {100 * row['high']:.0f} %)"
        for row in found.to_dict("records")
        if row["failed"]
    ]


def _place(row: dict[Any, Any], names: Sequence[str]) -> str:
    """The settings of a cell that are set, in front of what is said of it."""
    own = " ".join(f"{name}={row[name]}" for name in names if row[name] == row[name])
    return f"{own}: " if own else ""
