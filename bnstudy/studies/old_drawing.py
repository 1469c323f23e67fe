"""Panels that are left to convert to data; this file then goes."""

from collections.abc import Mapping
from typing import Any

import pandas as pd
from matplotlib.axes import Axes

from bnstudy import figures, stats
from bnstudy.studies.kit import extended

ONE_GROUP = "_all"


def interval(table: pd.DataFrame, column: str) -> pd.DataFrame:
    """One row: mean, low and high of a column over the seeds."""
    return stats.summarize(extended(table[["seed", column]], {ONE_GROUP: 0}), ONE_GROUP, column)


def across(table: pd.DataFrame, columns: Mapping[float, str]) -> pd.DataFrame:
    """Columns as a curve: rows of x, mean, low, high over the seeds, of the columns there are."""
    frames = [
        interval(table, column).assign(x=x)
        for x, column in columns.items()
        if column in table and table[column].notna().any()
    ]
    return pd.concat(frames) if frames else pd.DataFrame(columns=["x", "mean", "low", "high"])


def course(table: pd.DataFrame, name: str) -> pd.DataFrame:
    """The columns `name/01`, `name/02`, ... as a curve over checkpoints."""
    own = sorted(c for c in table if c.startswith(f"{name}/"))
    return across(table, {float(c.rpartition("/")[2]): c for c in own})


def finish(ax: Axes, title: str, fontsize: float = 6.5, room: float | None = None) -> None:
    """Legend and title; `room` above and below the curves, as a part of their height."""
    if room is not None:
        ax.margins(y=room)
    ax.legend(fontsize=fontsize)
    ax.set_title(title)


def zero(ax: Axes) -> None:
    """The line of no difference."""
    ax.axhline(0, color="black", linewidth=0.7)


def bars(ax: Axes, numbers: Mapping[str, float], limits: tuple[float, float], xlabel: str) -> None:
    """Published numbers as horizontal bars."""
    ax.barh(range(len(numbers)), list(numbers.values()), color="#0072B2")
    ax.set_yticks(range(len(numbers)), list(numbers))
    ax.set_xlim(*limits)
    ax.set_xlabel(xlabel)


def decomposition(ax: Axes, table: pd.DataFrame, axis: str, xlabel: str) -> None:
    """What training loses to the noise of batch statistics, and what evaluation loses to them.

    Training noise: training error with batch statistics. Mismatch: test error by exponential
    average minus that by PreciseBN (a stale average), and minus that by batch statistics of the
    training size (another normalization than in training).
    """
    stale = table["test_error"] - table["test_error_precise"]
    other = table["test_error"] - table["test_error_batch"]
    table = extended(table, {"stale": stale, "other": other})
    _curves(ax, table, axis, xlabel, "error, difference (%, pp)", percent=True, columns={
        "training error, batch statistics": "train_error",
        "exponential average minus PreciseBN": "stale",
        "exponential average minus batch statistics": "other",
    })  # fmt: skip
    zero(ax)
    ax.margins(y=0.25)
    ax.set_title("training noise and evaluation mismatch")


def values_behind(ax: Axes, table: pd.DataFrame, axis: str, xlabel: str) -> None:
    """m = B * H * W of the layer with the fewest, and the least effective m, against an axis."""
    _curves(ax, table, axis, xlabel, "values (smallest layer)", columns={
        "m (values behind a statistic)": "smallest_m", "effective m": "effective_m",
    })  # fmt: skip
    ax.set_yscale("log", base=2)
    ax.set_title("values behind a statistic")


def _curves(
    ax: Axes, table: pd.DataFrame, axis: str, xlabel: str, ylabel: str,
    columns: Mapping[str, str], percent: bool = False,
) -> None:  # fmt: skip
    drawn: dict[str, Any] = {
        label: stats.summarize(table, axis, column) for label, column in columns.items()
    }
    figures.series(ax, drawn, axis, percent=percent, xlabel=xlabel, ylabel=ylabel)
    ax.legend(fontsize=6.5)
