"""One self-contained HTML page of all studies that have results.

It reads result folders and nothing else: study.json, claims.json, table.csv, figure.svg (or .png)
and, where a study has them, details.svg (or .png). The page needs no network and no script; the
same folders give the same bytes.
"""

from __future__ import annotations

import base64
import gzip
import json
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader

SCALES = ("smoke", "demo", "quick", "full")  # smallest first; others follow by name
VERDICTS = ("supported", "refuted", "inconclusive", "invalid")
WORDS = (*VERDICTS, "true", "false", "shown", "not shown")  # the last four are counted nowhere
_KINDS = {"svg": "image/svg+xml", "png": "image/png"}  # of figures, the first that is there


@dataclass(frozen=True)
class StudyResult:
    """What one run of one study left in its folder; `problems` says what could not be read."""

    folder: str
    study: dict[str, Any]
    claims: list[dict[str, Any]] = field(default_factory=list)
    table: str = ""
    figure: str = ""
    details: str = ""  # a second figure, of every arm
    problems: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The study's name; the folder's where study.json does not give one."""
        return str(self.study.get("name") or self.folder)

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

    A folder with a study.json is a result. What is damaged or absent in it is said in `problems`
    and on the page, never skipped in silence. Empty where nothing has run or root does not exist.
    """
    root = Path(root)
    results = [read(path.parent, root) for path in root.rglob("study.json")]
    return sorted(results, key=lambda r: (r.name, _scale_rank(r.scale), r.folder))


def read(folder: str | Path, root: str | Path | None = None) -> StudyResult:
    """The result in one folder, named relative to root."""
    folder = Path(folder)
    problems: list[str] = []

    def text(name: str) -> str:
        try:
            return (folder / name).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            reason = "is absent" if isinstance(error, FileNotFoundError) else f"unreadable: {error}"
            problems.append(f"{name} {reason}")
            return ""

    def parsed(name: str, kind: type) -> Any:
        source = text(name)
        if not source:
            return kind()
        try:
            value = json.loads(source)
            if isinstance(value, kind):
                return value
            problems.append(f"{name} is damaged: expected a JSON {kind.__name__}")
        except json.JSONDecodeError as error:
            problems.append(f"{name} is damaged: {error}")
        return kind()

    study = parsed("study.json", dict)
    claims = [claim for claim in parsed("claims.json", list) if isinstance(claim, dict)]
    table = text("table.csv")
    figure, details = (_drawn(folder, stem) for stem in ("figure", "details"))
    if not figure:
        problems.append("no figure.svg or figure.png")
    place = folder.relative_to(root).as_posix() if root is not None else folder.name
    return StudyResult(place, study, claims, table, figure, details, tuple(problems))


def _drawn(folder: Path, stem: str) -> str:
    """The data address of a figure; empty where there is none."""
    for suffix, kind in _KINDS.items():
        path = folder / f"{stem}.{suffix}"
        if path.is_file():
            return _data_uri(kind, path.read_bytes())
    return ""


def render(results: Sequence[StudyResult]) -> str:
    """The page. Several scales of one study stand under one heading, smallest first."""
    # An <img> with a data address instead of inline SVG: two figures cannot clash in their ids, and
    # nothing in a file can run. Everything else is escaped by jinja. A field that a file lacks is
    # left out of the page (jinja's lenient Undefined): a damaged result must not hide the others.
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        number=number, bound=bound, interval=interval, p=p_value, plain=plain, looked=looked
    )
    # compressed: tables of a hundred columns would be most of the page; mtime: the same bytes
    environment.globals.update(
        csv_uri=lambda t: _data_uri("application/gzip", gzip.compress(t.encode(), mtime=0))
    )
    ordered = sorted(results, key=lambda r: (r.name, _scale_rank(r.scale), r.folder))
    studies = [(name, list(group)) for name, group in groupby(ordered, key=lambda r: r.name)]
    counts = Counter(_word(r.primary) for r in ordered if r.primary)
    return environment.get_template("page.html.jinja").render(
        studies=studies,
        counts=[(word, counts[word]) for word in VERDICTS if counts[word]],
        word=_word,
    )


def number(value: Any, unit: str = "", signed: bool = False, digits: int = 3) -> str:
    """A number to `digits` significant digits with its unit, a dash where there is none."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        return "\N{EN DASH}"
    size = math.floor(math.log10(abs(value))) if value else 0
    if -4 < size < 6:
        text = f"{value:{'+' if signed else ''}.{max(0, digits - 1 - max(size, 0))}f}"
    else:
        text = f"{value:{'+' if signed else ''}.{digits - 1}e}"
    text = text.replace("-", "\N{MINUS SIGN}")
    return f"{text}\N{NO-BREAK SPACE}{unit}" if unit else text


def bound(value: Any, unit: str = "") -> str:
    """A threshold as it was chosen: 0 and 0.5, not 0.00 and 0.500."""
    shown = f"{value:g}" if isinstance(value, (int, float)) else plain(value)
    return f"{shown}\N{NO-BREAK SPACE}{unit}" if unit else shown


def interval(claim: dict[str, Any]) -> str:
    """A claim's interval, its ends rounded alike."""
    low, high = claim.get("low"), claim.get("high")
    return f"[{number(low, signed=True)}, {number(high, signed=True)}]"


def p_value(value: Any) -> str:
    """A p value as papers print it."""
    if not isinstance(value, (int, float)):
        return "\N{EN DASH}"
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def plain(value: Any) -> str:
    """Anything from a JSON file as a line of text."""
    if isinstance(value, str):
        return value
    if isinstance(value, list):
        return ", ".join(map(plain, value))
    if isinstance(value, dict):
        return "; ".join(f"{key}: {plain(item)}" for key, item in value.items())
    return "" if value is None else str(value)


def looked(looks: Any) -> str:
    """The looks of study.json in words; empty where there were none."""
    if not isinstance(looks, dict) or not looks.get("taken"):
        return ""
    taken = [
        f"{look.get('seeds')} seeds at level {number(look.get('level'))}: {look.get('primary')}"
        for look in looks["taken"]
    ]
    return f"{'; '.join(taken)} ({len(taken)} of {looks.get('of')}; {looks.get('stopped')})"


def _word(claim: dict[str, Any]) -> str:
    word = str(claim.get("verdict"))
    return word if word in WORDS else "invalid"


def _scale_rank(scale: str) -> tuple[int, str]:
    return (SCALES.index(scale) if scale in SCALES else len(SCALES), scale)


def _data_uri(kind: str, data: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode('ascii')}"
