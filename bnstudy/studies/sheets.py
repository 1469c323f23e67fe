"""The figures of a study: its panels, the verdicts that are written on them, files and words."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from bnstudy.atomic import write_atomically
from bnstudy.errors import UserError, unknown
from bnstudy.numbers import MINUS, UNMEASURED, decimals, estimate, fixed

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

    from bnstudy.figures import Panel

STEMS = {"figure": "headline", "details": "details"}  # of files -> function of the module
KINDS = ("svg", "pdf", "png")
MOST = 3  # panels of a headline
LEVEL = 0.95  # of intervals where there were no looks

Verdict = Mapping[str, Any]
"""As claims.json has it"""


def panels_of(
    found: ModuleType, table: "pd.DataFrame", level: float = LEVEL
) -> "dict[str, list[Panel]]":
    """The panels of a study's module by the stem of their files: "figure", and "details" if any.

    level: of the intervals of paired differences, that of the look which ended the study.
    Raises ValueError for a headline without a panel or with more than three.
    """
    from bnstudy.studies.drawing import at_level

    with at_level(level):
        sheets = {"figure": list(found.headline(table))}
        if hasattr(found, STEMS["details"]):
            sheets["details"] = list(found.details(table))
    if not 1 <= len(sheets["figure"]) <= MOST:
        raise ValueError(f"a headline has one to {MOST} panels, not {len(sheets['figure'])}")
    return {stem: panels for stem, panels in sheets.items() if panels}


def measured(verdict: Verdict) -> str:
    """`+5.1 pp [2.4, 7.8]`: what a claim's seeds have shown; nothing where a kind has no number."""
    if verdict.get("kind") == "identical" or verdict["level"] is None:
        return ""
    return estimate(verdict["mean"], verdict["low"], verdict["high"], verdict["unit"])


def numbers(verdict: Verdict) -> str:
    """Estimate, kind of interval, threshold and detectable effect, all with the same decimals."""
    if measured(verdict) in ("", UNMEASURED):
        return measured(verdict)
    beside = [_beside(verdict, name) for name in ("threshold", "detectable")]
    parts = [f"{100 * verdict['level']:.3g} % interval", *filter(None, beside)]
    return f"{measured(verdict)} ({', '.join(parts)})"


def told(verdict: Verdict) -> str:
    """What is written below the title of a panel: verdict, estimate and threshold."""
    found = measured(verdict)
    if found and found != UNMEASURED:
        level = f"{found} ({100 * verdict['level']:.3g} %)"
        found = ", ".join(filter(None, (level, _beside(verdict, "threshold"))))
    return f"{verdict['verdict']}: {found}" if found else str(verdict["verdict"])


def _beside(verdict: Verdict, name: str) -> str:
    """A number beside an estimate, with its decimals; nothing where it is zero or unknown.

    A threshold was chosen, and is written as it was.
    """
    value = verdict.get(name)
    if not value or not math.isfinite(value):
        return ""
    if name == "threshold":
        return f"{name} {value:g}".replace("-", MINUS)
    return f"{name} {fixed(value, decimals(verdict['low'], verdict['high']))}"


def heading(verdicts: Sequence[Verdict], title: str = "") -> str:
    """The study's title; below it the primary claim's verdict: what was measured, n, published."""
    lines = [title]
    for verdict in verdicts:
        if verdict["primary"]:
            parts = [measured(verdict), f"n = {verdict['n']}"]
            if parts[0] not in ("", UNMEASURED):
                parts[0] += f" ({100 * verdict['level']:.3g} % interval)"
            published = verdict.get("published") or ""
            if published and not published.endswith(")"):  # without its kind it would read as ours
                published = f"published: {published}"
            found = f"{verdict['verdict']}: {', '.join(filter(None, parts))}"
            lines.append(found + (f"; {published}" if published else ""))
    return "\n".join(filter(None, lines))


def drawn(
    panels: "Sequence[Panel]", verdicts: Sequence[Verdict], stem: str = "figure",
    look: str = "page", title: str = "",
) -> "Figure":  # fmt: skip
    """Panels with the verdicts of their claims; over the headline the title and the primary's."""
    from bnstudy import figures

    texts = {verdict["name"]: told(verdict) for verdict in verdicts}
    above = heading(verdicts, title) if stem == "figure" else ""
    return figures.draw(panels, look, above, texts)


def write(
    sheets: "Mapping[str, Sequence[Panel]]", verdicts: Sequence[Verdict], folder: Path,
    title: str = "",
) -> dict[str, str]:  # fmt: skip
    """Write all figures and points.csv, what they draw; the alternative texts by stem."""
    import pandas as pd

    from bnstudy import figures

    tables = []
    for stem, panels in sheets.items():
        figures.save(drawn(panels, verdicts, stem, title=title), folder, stem)
        own = figures.points(panels)
        own.insert(0, "figure", STEMS[stem])
        tables.append(own)
    for kind in KINDS:  # of an earlier version of the study
        if "details" not in sheets:
            (folder / f"details.{kind}").unlink(missing_ok=True)
    points = pd.concat(tables).to_csv(index=False, float_format="%.6g")
    write_atomically(folder / "points.csv", points)
    return {stem: figures.alt(panels) for stem, panels in sheets.items()}


def redrawn(found: ModuleType, folder: Path, stem: str = "figure", look: str = "page") -> "Figure":
    """A figure of a result folder in another look, from its table.csv and claims.json.

    Raises UserError for a folder without them, an unknown look, and details where there are none.
    """
    import pandas as pd

    for name in ("table.csv", "claims.json"):
        if not (folder / name).is_file():
            raise UserError(f"{folder} is no result of a study: it has no {name}")
    if stem not in STEMS:
        raise unknown("figure", stem, STEMS)
    stated = folder / "study.json"
    study = json.loads(stated.read_text()) if stated.is_file() else {}
    alpha = study.get("looks", {}).get("level")
    table = pd.read_csv(folder / "table.csv", low_memory=False)
    sheets = panels_of(found, table, 1 - alpha if alpha else LEVEL)
    if stem not in sheets:
        raise UserError(f"{folder}: this study has no details, only its headline figure")
    verdicts = json.loads((folder / "claims.json").read_text())
    return drawn(sheets[stem], verdicts, stem, look, study.get("title", ""))
