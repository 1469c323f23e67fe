"""A comparison as a paper would print it: text, Markdown, LaTeX with booktabs, the terminal.

One layout for all of them: a line for each arm, in blocks of the other axes, and a note on how to
read it. Numbers have the decimals of their intervals (`bnstudy.numbers`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import pandas as pd
from rich.box import SIMPLE_HEAD
from rich.markup import escape
from rich.table import Table

from bnstudy import numbers
from bnstudy.comparison.cells import LOWER_IS_BETTER, VERSIONS
from bnstudy.errors import count
from bnstudy.stats import fewest

ABSENT = "\N{EM DASH}"
STAR = "*"
TEX = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "$": r"\$", "&": r"\&", "%": r"\%",
    "#": r"\#", "_": r"\_", "^": r"\textasciicircum{}", "~": r"\textasciitilde{}",
    "<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}", '"': r"\textquotedbl{}",
    numbers.MINUS: r"$-$", ABSENT: "---",
}  # fmt: skip
_ESCAPES = str.maketrans(TEX)


class Row(NamedTuple):
    """A line of the sheet; `begins`: it is the first of its block."""

    cells: list[str]
    best: bool
    begins: bool


class Sheet(NamedTuple):
    """What all printed forms show; `left` columns hold words, the others numbers."""

    header: list[str]
    left: int
    value: int  # the column of the means
    rows: list[Row]
    note: Callable[[str], str]  # how a best mean is marked -> how to read the table


def to_csv(comparison: pd.DataFrame) -> str:
    """The tidy numbers as CSV, in the metric's own unit."""
    return comparison.to_csv(index=False, lineterminator="\n")


def to_text(comparison: pd.DataFrame, looks: str = "") -> str:
    """The comparison in aligned columns of plain text.

    looks: what is to be said of looks at the table, where its differences have intervals of a look.
    """
    sheet = layout(comparison, looks)
    lines = [sheet.header, *(_starred(sheet, row) for row in sheet.rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]

    def line(cells: Sequence[str]) -> str:
        shown = [
            cell.ljust(width) if i < sheet.left else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(cells, widths, strict=True))
        ]
        return "  ".join(shown).rstrip()

    rule = "-" * (sum(widths) + 2 * (len(widths) - 1))
    body = [line(cells) for cells in lines]
    return "\n".join([body[0], rule, *body[1:], "", sheet.note(STAR)]) + "\n"


def to_markdown(comparison: pd.DataFrame, looks: str = "") -> str:
    """The comparison as a Markdown table and a line on how to read it; looks as in `to_text`."""
    sheet = layout(comparison, looks)

    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"

    marks = ["---"] * sheet.left + ["---:"] * (len(sheet.header) - sheet.left)
    rows = [line(_marked(sheet, row, "**{}**")) for row in sheet.rows]
    head = [line(sheet.header), "|" + "|".join(marks) + "|"]
    return "\n".join([*head, *rows, "", sheet.note("Bold")]) + "\n"


def to_latex(comparison: pd.DataFrame, looks: str = "") -> str:
    """The comparison as a LaTeX table with the rules of booktabs; looks as in `to_text`.

    Its caption is the note. The document needs `\\usepackage{booktabs}`.
    """
    sheet = layout(comparison, looks)
    lines: list[str] = []
    for row in sheet.rows:
        if row.begins and lines:
            lines.append(r"\midrule")
        escaped = Row([tex(cell) for cell in row.cells], row.best, row.begins)
        lines.append(" & ".join(_marked(sheet, escaped, r"\textbf{{{}}}")) + r" \\")
    columns = "l" * sheet.left + "r" * (len(sheet.header) - sheet.left)
    return "\n".join(
        [
            r"% needs \usepackage{booktabs}",
            r"\begin{table}",
            r"\centering",
            rf"\caption{{{tex(sheet.note('Bold'))}}}",
            rf"\begin{{tabular}}{{{columns}}}",
            r"\toprule",
            " & ".join(map(tex, sheet.header)) + r" \\",
            r"\midrule",
            *lines,
            r"\bottomrule",
            r"\end{tabular}",
            r"\end{table}",
            "",
        ]
    )


def to_rich(comparison: pd.DataFrame, looks: str = "") -> Table:
    """The comparison as a table for the terminal; looks as in `to_text`."""
    sheet = layout(comparison, looks)
    table = Table(box=SIMPLE_HEAD, caption=escape(sheet.note(STAR)), caption_justify="left")
    for i, title in enumerate(sheet.header):
        justify: Literal["left", "right"] = "left" if i < sheet.left else "right"
        table.add_column(escape(title), justify=justify, overflow="fold")
    for row in sheet.rows:
        if row.begins and table.row_count:
            table.add_section()
        table.add_row(*map(escape, _starred(sheet, row)), style="bold" if row.best else None)
    return table


def tex(text: str) -> str:
    """A text as LaTeX prints it: every special character escaped, on one line."""
    return " ".join(text.split()).translate(_ESCAPES)


def layout(comparison: pd.DataFrame, looks: str = "") -> Sheet:
    """Titles, lines and the note: what all printed forms show."""
    names = list(comparison.columns[: comparison.columns.get_loc("metric")])
    arm, others = names[0], names[1:]
    reference, metric = comparison[arm].iloc[0], str(comparison["metric"].iloc[0])
    factor, unit, title = units(metric)
    blocks = comparison.groupby(others, sort=False, dropna=False) if others else [((), comparison)]
    own = comparison["n"].nunique() > 1  # else one n, in the note
    counted = comparison["failed"].notna().any() or comparison["diverged"].any()
    header = [*map(short, [*others, arm]), *(["n"] if own else []), title,
              f"vs {reference}{f' ({unit})' if unit else ''}", "p (Holm)",
              *(["failed"] if counted else []), "time"]  # fmt: skip
    rows = []
    for point, block in blocks:
        for i, (_, cell) in enumerate(block.iterrows()):
            place = [str(value) if i == 0 else "" for value in point]
            cells = [*place, str(cell[arm]), *([str(cell["n"])] if own else []),
                     *_numbers(cell, factor, cell[arm] == reference),
                     *([_failures(cell)] if counted else []), _time(cell)]  # fmt: skip
            rows.append(Row(cells, bool(cell["best"]), begins=i == 0))

    def note(mark: str) -> str:
        return f"{title}: {_note(comparison, reference, mark, looks)}"

    return Sheet(header, len(names), len(names) + own, rows, note)


def units(metric: str) -> tuple[float, str, str]:
    """Of a metric: the factor that numbers are shown with, the unit of differences, the title.

    Errors are fractions in tables and shown in percent.
    """
    percent = "error" in metric
    return (100.0, "pp", f"{metric} (%)") if percent else (1.0, "", metric)


def short(axis: str) -> str:
    """`norm.name` is called norm, `train.batch_size` batch_size."""
    folder, _, last = axis.rpartition(".")
    return folder if last == "name" else last


def estimate(cell: pd.Series, columns: Sequence[str], factor: float, signed: bool) -> str:
    """Mean and interval; the mean alone where the interval is unknown or infinite."""
    mean, low, high = (float(factor * cell[column]) for column in columns)
    if not math.isfinite(mean):
        return ABSENT
    if not math.isfinite(high - low):
        return numbers.estimate(mean, None, None, signed=signed)
    return numbers.estimate(mean, low, high, signed=signed)


def _numbers(cell: pd.Series, factor: float, reference: bool) -> list[str]:
    """Mean, difference and p."""
    mean = estimate(cell, ("mean", "low", "high"), factor, signed=False)
    if reference:
        return [mean, "reference", ""]
    ends = ("difference", "difference_low", "difference_high")
    return [mean, estimate(cell, ends, factor, signed=True), _p(cell["p_holm"])]


def _p(value: float) -> str:
    """A p-value as papers print it."""
    if math.isnan(value):
        return ABSENT
    return "<0.001" if value < 0.001 else f"{value:.3f}"


def _failures(cell: pd.Series) -> str:
    """How many runs did not learn, and how many of those diverged."""
    if not cell["runs"]:
        return ABSENT
    diverged = f"{cell['diverged']} diverged" if cell["diverged"] else ""
    if math.isnan(cell["failed"]):
        return f"{diverged} of {cell['runs']}" if diverged else ABSENT
    told = f"{int(cell['failed'])} of {cell['runs']}"
    return f"{told} ({diverged})" if diverged else told


def _time(cell: pd.Series) -> str:
    seconds = cell["wall_seconds"]
    return f"{seconds:.3g} s" if math.isfinite(seconds) else ABSENT


def _starred(sheet: Sheet, row: Row) -> list[str]:
    """Cells with a star after a best mean; the other means have room for one."""
    if not any(other.best for other in sheet.rows):
        return row.cells
    return [f"{cell}{STAR if row.best else ' '}" if i == sheet.value else cell
            for i, cell in enumerate(row.cells)]  # fmt: skip


def _marked(sheet: Sheet, row: Row, mark: str) -> list[str]:
    """Cells with a best mean in bold."""
    return [mark.format(cell) if row.best and i == sheet.value else cell
            for i, cell in enumerate(row.cells)]  # fmt: skip


def _note(comparison: pd.DataFrame, reference: Any, mark: str, looks: str) -> str:
    """How to read the table, in sentences."""
    level, alpha = (float(comparison[name].iloc[0]) for name in ("level", "alpha"))
    most, tested = int(comparison["n"].max()), int(comparison["p"].notna().sum())
    seeds = count(most, "seed")
    if comparison["n"].nunique() > 1:
        seeds = f"{comparison['n'].min()} to {seeds}"
    sentences = [
        f"mean [{100 * level:g} % Student-t interval], {seeds}"
        if most > 1
        else f"{seeds} each: a single run has no interval",
        f"Differences to {reference} are paired by seed [{100 * (1 - alpha):.3g} % sign-flip "
        "interval, not adjusted]",
        f"p: two-sided sign-flip test, adjusted for {count(tested, 'comparison')} (Holm)",
        looks,
        _power(comparison, alpha, tested),
        _rule(comparison, mark, alpha),
        "Time is a run's share of its stack's wall time, compilation included",
        f"{ABSENT} means no run" if (comparison["n"] == 0).any() else "",
        _versions(comparison),
    ]
    return ". ".join(filter(None, sentences)) + "."


def _power(comparison: pd.DataFrame, alpha: float, tested: int) -> str:
    """That the seeds are too few to distinguish anything, where they are."""
    pairs = int(comparison["pairs"].max())
    needed = fewest(alpha / max(tested, 1))
    if not tested or pairs >= needed:
        return ""
    return (
        f"With {count(pairs, 'pair')} of seeds no p can be {alpha:.3g} or less: {needed} are needed"
    )


def _rule(comparison: pd.DataFrame, mark: str, alpha: float) -> str:
    """Which means are marked."""
    if not any(word in str(comparison["metric"].iloc[0]) for word in LOWER_IS_BETTER):
        return "No mean is marked as best: which end of this metric is better is not known"
    none = "" if comparison["best"].any() else " (none here)"
    return (
        f"{mark}: the lowest mean of a block, if its difference to every other arm there excludes "
        f"zero at {100 * alpha:.3g} % after the same adjustment{none}"
    )


def _versions(comparison: pd.DataFrame) -> str:
    """The versions behind the numbers, where the table has them."""
    told = []
    for name in VERSIONS:
        found = {v for text in comparison[name] for v in text.split(", ") if v}
        told += [f"{name} {', '.join(sorted(found))}"] if found else []
    return ", ".join(told)
