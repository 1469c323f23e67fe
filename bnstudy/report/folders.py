"""Result folders as they lie on disk; what is damaged or absent is said, never hidden."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bnstudy.report.pictures import Picture, picture

SCALES = ("smoke", "demo", "quick", "full")  # smallest first; others follow by name
BESIDE = ("table.csv", "failures.csv", "registration.json", "tuning.json", "figure.pdf",
          "details.pdf")  # fmt: skip
_NO_RESULTS = {"runs", "wandb"}  # folders of records in a results folder


@dataclass(frozen=True)
class StudyResult:
    """What one run of one study left in its folder; `problems` says what could not be read.

    folder: relative to the folder that was searched, for people.
    path:   where it lies.
    data:   data set -> its models and numbers of training examples, from the table of runs.
    files:  name -> bytes of what is linked, not shown.
    """

    folder: str
    path: Path
    study: dict[str, Any]
    claims: list[dict[str, Any]] = field(default_factory=list)
    figure: Picture | None = None
    details: Picture | None = None
    points: str = ""
    tuning: dict[str, Any] = field(default_factory=dict)
    data: dict[str, tuple[list[str], list[str]]] = field(default_factory=dict)
    files: dict[str, int] = field(default_factory=dict)
    problems: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The study's name; the folder's where study.json does not give one."""
        return str(self.study.get("name") or self.folder)

    @property
    def title(self) -> str:
        """The study's title; its name where there is none."""
        return str(self.study.get("title") or self.name)

    @property
    def short(self) -> str:
        """The study's name in words: `batch size`."""
        return self.name.replace("_", " ")

    @property
    def scale(self) -> str:
        """The scale it ran at, such as quick."""
        return str(self.study.get("scale") or "")

    @property
    def primary(self) -> dict[str, Any] | None:
        """The verdict on the primary claim, None where there is none."""
        return next((claim for claim in self.claims if claim.get("primary")), None)


def collect(root: str | Path) -> list[StudyResult]:
    """All study results under a folder, sorted by study, scale and folder.

    A folder with a study.json is a result; records (`runs`, `wandb`) are not searched. Empty where
    nothing has run or root does not exist.
    """
    root = Path(root)
    return ordered(read(folder, root) for folder in _folders(root))


def ordered(results: Iterator[StudyResult] | list[StudyResult]) -> list[StudyResult]:
    """Results by study, scale and folder: the same page whatever order they come in."""
    return sorted(results, key=lambda r: (r.name, scale_rank(r.scale), r.folder))


def scale_rank(scale: str) -> tuple[int, str]:
    """Scales from the smallest up."""
    return (SCALES.index(scale) if scale in SCALES else len(SCALES), scale)


def _folders(root: Path) -> Iterator[Path]:
    for place, below, files in os.walk(root):
        below[:] = sorted(set(below) - _NO_RESULTS)
        if "study.json" in files:
            yield Path(place)


def read(folder: str | Path, root: str | Path | None = None) -> StudyResult:
    """The result in one folder, named relative to root."""
    folder = Path(folder)
    problems: list[str] = []

    def attempt(name: str, parse: Callable[[str], Any], absent: Any, needed: bool = True) -> Any:
        """What a file holds; `absent` and a problem where that cannot be read."""
        try:
            return parse((folder / name).read_text(encoding="utf-8"))
        except FileNotFoundError:
            if needed:
                problems.append(f"{name} is absent")
        except OSError as error:
            problems.append(f"{name} is unreadable: {error.strerror}")
        except (ValueError, csv.Error) as error:
            problems.append(f"{name} is damaged: {error}")
        return absent

    def drawn(stem: str) -> Picture | None:
        try:
            return picture(folder, stem)
        except (OSError, ValueError) as error:
            # the library's message holds an object's place in memory
            problems.append(f"{stem}.svg or {stem}.png is damaged: {type(error).__name__}")
            return None

    study = attempt("study.json", _parsed(dict), {})
    rows = attempt("claims.json", _parsed(list), [])
    claims = [claim for claim in rows if isinstance(claim, dict)]
    if len(claims) < len(rows):
        problems.append("claims.json is damaged: an entry is not a JSON object")
    data = attempt("table.csv", _data, {})
    points = attempt("points.csv", str, "", needed=False)
    tuning = attempt("tuning.json", _parsed(dict), {}, needed=False)
    figure, details = drawn("figure"), drawn("details")
    if figure is None and not any(p.startswith("figure.") for p in problems):
        problems.append("no figure.svg or figure.png")
    files = {n: (folder / n).stat().st_size for n in BESIDE if (folder / n).is_file()}
    place = folder.relative_to(root).as_posix() if root is not None else folder.name
    return StudyResult(place, folder, study, claims, figure, details, points, tuning, data, files,
                       tuple(problems))  # fmt: skip


def _parsed(kind: type) -> Callable[[str], Any]:
    """A parser of JSON whose outermost value is of this kind."""

    def parse(source: str) -> Any:
        value = json.loads(source)  # JSONDecodeError is a ValueError
        if not isinstance(value, kind):
            raise ValueError(f"expected a JSON {kind.__name__}")
        return value

    return parse


def _data(source: str) -> dict[str, tuple[list[str], list[str]]]:
    """Data set -> (models, numbers of training examples) of a table of runs."""
    found: dict[str, tuple[list[str], list[str]]] = {}
    for row in csv.DictReader(source.splitlines()):
        name = row.get("data.name")
        if not name:
            continue
        for held, column in zip(found.setdefault(name, ([], [])), ("model.name", "train_size"),
                                strict=True):  # fmt: skip
            if (value := row.get(column)) and value not in held:
                held.append(value)
    return found
