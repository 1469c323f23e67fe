"""The table a paper would show: arms with intervals and the paired difference to the first arm.

`compare` gives tidy numbers, one row per cell; `to_csv` writes them as they are; `to_markdown` and
`to_rich` lay them out, arms down and the other axes across. Which columns are axes is read from the
frame itself: all that stand left of `metric`, the first of them being the arm.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any

import pandas as pd
from rich.markup import escape
from rich.table import Table

from bnstudy.errors import UserError, unknown
from bnstudy.stats import paired_differences, per_seed, sign_flip_interval, t_interval
from bnstudy.stats.failures import CLASSES, failed

ABSENT = "\N{EM DASH}"


def compare(
    table: pd.DataFrame,
    axes: Mapping[str, Sequence[Any]] | Sequence[str],
    metric: str = "test_error",
    level: float = 0.95,
    repeated: float | None = None,
) -> pd.DataFrame:
    """Mean, Student-t interval and paired difference to the first arm, for every cell of a grid.

    table:  tidy, one row per run, with `seed` and, where known, `wall_seconds` and `diverged_at`.
    axes:   column -> its values in the order to show (a sequence of columns takes the values in
            order of appearance). The first axis is the arm; its first value is the reference.
    metric: a column of the table; numbers stay in its unit.
    repeated: level of this look where a table is looked at several times; differences then have
            sign-flip intervals of 1 - `repeated` instead of Student's t.
    Returns one row per combination, arms slowest: the axes, metric, n (finite values), mean, low,
    high, difference, difference_low, difference_high, pairs (seeds both arms have), wall_seconds
    (mean of one run), diverged and failed (number of runs; a diverged run failed, too; NaN in
    tables without num_classes and train_error). A cell without runs keeps its row with n = 0; a
    cell with a lost value has no mean. The reference has no difference.
    Raises UserError for an unknown axis or metric, and when a further column varies.
    """
    names = list(axes)
    if not names:
        raise UserError("nothing to compare: give at least one axis, such as norm=batch,group.")
    for name in names:
        if name not in table:
            raise unknown("axis", name, (c for c in map(str, table) if "." in c))
    if metric not in table or not pd.api.types.is_numeric_dtype(table[metric]):
        numbers = table.select_dtypes("number").columns
        raise unknown("metric", metric, (c for c in map(str, numbers) if "." not in c))
    values = {
        name: list(axes[name]) if isinstance(axes, Mapping) else list(table[name].unique())
        for name in names
    }
    known = CLASSES in table and "train_error" in table and table[CLASSES].notna().all()
    rows = []
    for point in product(*values.values()):
        where = dict(zip(names, point, strict=True))
        try:
            own = per_seed(table, metric, where)
            reference = per_seed(table, metric, {**where, names[0]: values[names[0]][0]})
        except ValueError as error:
            raise UserError(f"{error} Name it as a further axis, or fix its value.") from error
        runs = table[(table[names] == pd.Series(where)).all(axis=1)]
        shared = sorted(own.keys() & reference.keys())
        paired = paired_differences(own, reference, shared)
        first = point[0] == values[names[0]][0]
        gaps = [] if first else list(paired.values())
        difference = (
            t_interval(gaps, level)
            if repeated is None or not gaps
            else sign_flip_interval(gaps, 1 - repeated)
        )
        rows.append(
            {
                **where,
                "metric": metric,
                "n": sum(map(math.isfinite, own.values())),
                **dict(
                    zip(("mean", "low", "high"), t_interval(list(own.values()), level), strict=True)
                ),
                "difference": difference.mean,
                "difference_low": difference.low,
                "difference_high": difference.high,
                "pairs": 0 if first else len(shared),
                "wall_seconds": _mean(runs, "wall_seconds"),
                "diverged": int(runs["diverged_at"].notna().sum()) if "diverged_at" in runs else 0,
                "failed": int(failed(runs).sum()) if known else math.nan,
            }
        )
    return pd.DataFrame(rows)


def undecided(comparison: pd.DataFrame) -> tuple[int, int]:
    """How many differences to the reference have an interval that holds zero, of how many."""
    gaps = comparison[comparison["difference"].notna() | (comparison["pairs"] > 0)]
    decided = (gaps["difference_low"] > 0) | (gaps["difference_high"] < 0)
    return int((~decided).sum()), len(gaps)


def to_csv(comparison: pd.DataFrame) -> str:
    """The tidy numbers as CSV, in the metric's own unit."""
    return comparison.to_csv(index=False, lineterminator="\n")


def to_markdown(comparison: pd.DataFrame, level: float = 0.95, looks: str = "") -> str:
    """The comparison as a Markdown table and a line on how to read it; level as in `compare`.

    looks: what is to be said of looks at the table, where its differences have intervals of a look.
    """
    header, rows, note = _layout(comparison, level, looks)

    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(str(cell).replace("|", "\\|") for cell in cells) + " |"

    rule = "|" + "|".join(["---", *["---:"] * (len(header) - 1)]) + "|"
    return "\n".join([line(header), rule, *map(line, rows), "", note]) + "\n"


def to_rich(comparison: pd.DataFrame, level: float = 0.95, looks: str = "") -> Table:
    """The comparison as a table for the terminal; arguments as in `to_markdown`."""
    header, rows, note = _layout(comparison, level, looks)
    table = Table(caption=escape(note), caption_justify="left")
    for i, title in enumerate(header):
        table.add_column(escape(title), justify="left" if i == 0 else "right", overflow="fold")
    for row in rows:
        table.add_row(*map(escape, row))
    return table


def plus_minus(mean: float, low: float, high: float, *, signed: bool = False) -> str:
    """`mean ± half width`, with the decimals that two digits of the half width need, at most 3."""
    if not math.isfinite(mean):
        return ABSENT
    half = (high - low) / 2
    known = math.isfinite(half)
    decimals = _decimals(2 * (half if known and half > 0 else abs(mean)))
    text = f"{mean:{'+' if signed else ''}.{decimals}f}"
    return f"{text} ± {half:.{decimals}f}" if known else text


def between(mean: float, low: float, high: float) -> str:
    """`mean [low, high]`, signed: as `plus_minus`, for intervals whose sides differ."""
    if not math.isfinite(mean):
        return ABSENT
    known = math.isfinite(high - low)
    decimals = _decimals(high - low if known and high > low else 2 * abs(mean))
    ends = f" [{low:+.{decimals}f}, {high:+.{decimals}f}]" if known else ""
    return f"{mean:+.{decimals}f}{ends}"


def _decimals(width: float) -> int:
    """The decimals that two digits of half this width need, at most 3."""
    return min(3, max(0, 1 - math.floor(math.log10(width / 2)))) if width > 0 else 1


def _layout(
    comparison: pd.DataFrame, level: float, looks: str
) -> tuple[list[str], list[list[str]], str]:
    """Titles, cells and the note below: what both printed forms show."""
    names = list(comparison.columns[: comparison.columns.get_loc("metric")])
    arm, others = names[0], names[1:]
    metric = str(comparison["metric"].iloc[0])
    factor = 100.0 if "error" in metric else 1.0
    title = f"{metric} (%)" if factor == 100.0 else metric
    arms = list(comparison[arm].unique())
    header, columns = [_short(arm)], []
    points = list(comparison[others].drop_duplicates().itertuples(index=False)) if others else [()]
    for point in points:
        part = comparison
        for name, value in zip(others, point, strict=True):
            part = part[part[name] == value]
        place = ", ".join(f"{_short(n)}={v}" for n, v in zip(others, point, strict=True))
        header += [place or title, f"vs {arms[0]}", "time"]
        columns.append(part.set_index(arm))
    rows = []
    for name in arms:
        row = [str(name)]
        for part in columns:
            row += _cell(part.loc[name], factor, name == arms[0], ends=bool(looks))
        rows.append(row)
    return header, rows, f"{title}: {_note(comparison, arms[0], level, looks)}"


def _short(axis: str) -> str:
    """`norm.name` is called norm, `train.batch_size` batch_size."""
    folder, _, last = axis.rpartition(".")
    return folder if last == "name" else last


def _cell(cell: pd.Series, factor: float, reference: bool, ends: bool) -> list[str]:
    value = plus_minus(*(factor * cell[c] for c in ("mean", "low", "high")))
    counts = {what: int(cell[what]) for what in ("failed", "diverged") if cell[what] > 0}
    if counts:
        first, *more = counts
        told = [f"{counts[first]} of {max(cell['n'], *counts.values())} {first}"]
        value += f" ({', '.join(told + [f'{counts[what]} {what}' for what in more])})"
    three = [factor * cell[f"difference{end}"] for end in ("", "_low", "_high")]
    gap = between(*three) if ends else plus_minus(*three, signed=True)
    seconds = cell["wall_seconds"]
    time = f"{seconds:.3g} s" if math.isfinite(seconds) else ABSENT
    return [value, "reference" if reference else gap, time]


def _note(comparison: pd.DataFrame, first: Any, level: float, looks: str) -> str:
    least, most = comparison["n"].min(), comparison["n"].max()
    seeds = f"{most} seed{'' if most == 1 else 's'}"
    seeds = seeds if least == most else f"{least} to {seeds}"
    parts = [f"mean ± half width of the {100 * level:g} % Student-t interval over {seeds}"]
    if most < 2:
        parts = [f"{seeds} each: a single run has no interval"]
    parts.append(f"differences to {first} are paired by seed")
    if looks:
        parts.append(looks)
    parts.append("time is one run's share of its stack's wall time, compilation included")
    if (comparison["n"] == 0).any():
        parts.append(f"{ABSENT} means no run")
    return "; ".join(parts) + "."


def _mean(runs: pd.DataFrame, column: str) -> float:
    return float(runs[column].mean()) if column in runs and len(runs) else math.nan
