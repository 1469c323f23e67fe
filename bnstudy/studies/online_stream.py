"""Prequential error and forgetting on streams (F12b: Online Norm, Continual Norm).

Primary claim: after a stream of tasks PreciseBN over all tasks has a higher accuracy on the earlier
ones than the exponential average. Written before the first run of the study's grid.
"""

import numpy as np
import pandas as pd

from bnstudy import figures, stats
from bnstudy.stats import Claim, paired_differences
from bnstudy.studies.kit import (
    Precondition,
    Published,
    arms,
    chance,
    comparable,
    extended,
    in_order,
    panels,
    select,
    values,
)

TASK = "train.classes_per_task"
LEARNED = 0.75  # of chance: the prequential error counts every example from the first one on
PUBLISHED = Published(
    "published", "Chiley et al. 2019",
    "Online Norm equals BN at batch 32 offline (CIFAR-10, ResNet-20, 92.3 against 92.2 % "
    "accuracy); no number for streams of tasks at this scale",
)  # fmt: skip


def streams(rows: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Runs that see one example at a time, and runs that see task after task."""
    return rows[rows[TASK].isna()], rows[rows[TASK].notna()]


def shape(table: pd.DataFrame) -> tuple[int, int]:
    """A row for each data set: prequential error, old tasks, forgetting and its statistics."""
    return len(panels(table)), 4


def figure(table: pd.DataFrame, axes: np.ndarray) -> None:
    """Points by normalization."""
    for row, panel in zip(axes, panels(extended(table, {"arm": arms(table)})), strict=True):
        one, tasks = streams(panel.rows)
        for ax, rows, column, label, title in (
            (row[0], one, "online_error", "prequential error (%)", "one example at a time"),
            (row[1], tasks, "online_error", "prequential error (%)", "tasks one after another"),
            (row[2], tasks, "forgetting", "accuracy lost (pp)", "forgetting of earlier tasks"),
            (row[3], tasks, "statistics_loss", "accuracy won (pp)",
             "PreciseBN of all tasks, earlier tasks"),
        ):  # fmt: skip
            _points(ax, rows, column)
            ax.set_ylabel(label)
            ax.set_title(f"{panel.title}: {title}", fontsize=7.5)


def _points(ax, rows: pd.DataFrame, column: str) -> None:
    summary = stats.summarize(rows[rows[column].notna()], "arm", column).set_index("arm")
    names = in_order(summary.index)
    for i, name in enumerate(names):
        mean, low, high = 100 * summary.loc[name, ["mean", "low", "high"]].astype(float)
        style = figures.style_of(name)
        ax.errorbar(i, mean, yerr=[[mean - low], [high - mean]], color=style.color,
                    marker=style.marker, capsize=2)  # fmt: skip
    ax.set_xticks(range(len(names)), [figures.style_of(n).label for n in names], rotation=35,
                  ha="right", fontsize=6.5)  # fmt: skip
    ax.set_xlim(-0.6, len(names) - 0.4)


def learned(rows: pd.DataFrame, what: str) -> Precondition:
    """The precondition that an arm's prequential error is below chance."""
    error, limit = rows["online_error"].mean(), LEARNED * chance(rows)
    detail = f"prequential error {100 * error:.1f} %, limit {100 * limit:.0f} %"
    return (f"{what} learns", bool(error < limit), detail)


def claims(table: pd.DataFrame) -> list[Claim]:
    """Statistics in forgetting; continual norm; batch norm one example at a time."""
    found = []
    for panel in panels(extended(table, {"arm": arms(table)})):
        one, tasks = streams(panel.rows)
        present = set(panel.rows["arm"])

        def more(rows, metric, arm):
            """How much more of a metric batch norm has than another arm."""
            return paired_differences(*(values(rows, metric, {"arm": a}) for a in ("batch", arm)))

        same = comparable(panel.rows)
        reference = learned(select(one, {"arm": "layer"}), "layer norm, one at a time")
        forgets = panel.claims(panel.data, source="Pham et al. 2022", preconditions=[same])
        errs = panel.claims(
            panel.data, source="Chiley et al. 2019", preconditions=[same, reference]
        )
        found.append(
            forgets(
                "statistics",
                "after the tasks PreciseBN over all of them is more accurate on the earlier ones "
                "than the exponential average",
                values(tasks, "statistics_loss", {"arm": "batch"}), primary=panel.main,
            )
        )  # fmt: skip
        found += [
            forgets(
                f"forgetting, {arm}",
                f"batch forgets more than {figures.style_of(arm).label} norm",
                more(tasks, "forgetting", arm),
            )
            for arm in ("continual", "group")
            if arm in present
        ]
        found += [
            errs(
                f"batch 1, {arm}",
                "one at a time, batch norm's prequential error exceeds "
                f"{figures.style_of(arm).label} norm's",
                more(one, "online_error", arm),
            )
            for arm in ("online", "group", "layer")
            if arm in present
        ]
    return found
