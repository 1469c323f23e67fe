"""The table that a paper would show, of the arms of a plan."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bnstudy.atomic import write_atomically
from bnstudy.cli import execute, planning, present
from bnstudy.cli.apart import Apart

if TYPE_CHECKING:
    import pandas as pd

    from bnstudy.config.compose import Request
    from bnstudy.studies.looks import Look
    from bnstudy.sweep.plan import Plan


def show(request: "Request", plan: "Plan", metric: str, figure: bool = False) -> None:
    """Print and write the table of a plan's arms; with looks, that of the look it ended at.

    Nothing where nothing has trained.

    Args:
        figure: draw it, too.
    """
    from rich.console import Console

    from bnstudy import comparison

    looks = looked(request, plan, metric) if request.looks else []
    if looks:
        runs, result, note = looks[-1].rows, looks[-1].found, _note(request, looks[-1])
    else:
        runs, axes = named(request, plan)
        if runs.empty:
            return
        result, note = comparison.compare(runs, axes, metric), ""
    Console().print(comparison.to_rich(result, note))
    if request.looks and not looks:
        present.note("no look is complete: nothing is decided")
    folder = planning.runs_of(request) / "compare" / plan.grid_hash
    folder.mkdir(parents=True, exist_ok=True)
    for suffix, text in {
        "csv": comparison.to_csv(result),
        "txt": comparison.to_text(result, note),
        "md": comparison.to_markdown(result, note),
        "tex": comparison.to_latex(result, note),
    }.items():
        write_atomically(folder / f"table.{suffix}", text)
        present.line(folder / f"table.{suffix}")
    if figure:
        Apart(_drawn, result, runs, folder).result()
        present.line(folder / "figure.png")


def _drawn(result: "pd.DataFrame", runs: "pd.DataFrame", folder: Path) -> None:
    """Write figure.svg, .pdf and .png. Apart, since what draws starts threads."""
    import matplotlib

    from bnstudy import figures
    from bnstudy.comparison.panels import panels

    with matplotlib.rc_context(figures.rc()):
        figures.save(figures.draw(panels(result, runs)), folder, "figure")


def looked(request: "Request", plan: "Plan", metric: str) -> "list[Look]":
    """The looks that can be taken at a plan's runs: they end when all differences are decided."""
    from bnstudy import comparison
    from bnstudy.studies.looks import replay

    table, axes = named(request, plan)

    def judge(rows: "pd.DataFrame", level: float) -> "tuple[pd.DataFrame, bool]":
        result = comparison.compare(rows, axes, metric, alpha=level)
        return result, comparison.undecided(result)[0] == 0

    return replay(table, len(plan.cells), request.seeds, request.looks, judge)


def told(look: "Look") -> str:
    """What a look at a comparison found."""
    from bnstudy import comparison

    left, of = comparison.undecided(look.found)
    return f"{of - left} of {of} differences decided, level {look.level:.3g}"


def named(request: "Request", plan: "Plan") -> "tuple[pd.DataFrame, dict[str, list[Any]]]":
    """A plan's runs and axes, with arms called what the command line calls them: norm=mine."""
    table = execute.table_of(request, plan)
    axes: dict[str, list[Any]] = {}
    for key, _ in request.axes:
        own = {
            cell.cell: label(point[key])
            for cell, point in zip(plan.cells, request.points, strict=True)
        }
        if any(isinstance(value, str) for value in own.values()):
            own = {cell: str(value) for cell, value in own.items()}  # one type a column
        table[key] = table["cell"].map(own)
        axes[key] = list(dict.fromkeys(own.values()))
    return table, axes


def label(value: Any) -> Any:
    """A value of an axis as a table shows it: lists and null as text."""
    return value if isinstance(value, str | int | float) else json.dumps(value)


def _note(request: "Request", look: "Look") -> str:
    """What a reader must know of the looks behind a table."""
    seeds = ", ".join(map(str, request.looks))
    why = "all are decided" if look.decided else look.stopped
    return (
        f"these are repeated intervals, not adjusted for several arms; looks at {seeds} seeds, "
        f"ended at look {look.number}: {why}"
    )
