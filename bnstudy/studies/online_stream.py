"""Prequential error and forgetting on streams (F12b: Online Norm, Continual Norm).

Primary claim: after a stream of tasks PreciseBN over all tasks answers the earlier ones more
accurately than the exponential average, among the classes of the task. Among all ten classes a
network answers with the last task's, and nothing is left to win; within the task what was learned
can still be there, and a precondition asks whether it is. Written before the first run of this
version of the study's grid.
"""

import numpy as np
import pandas as pd

from bnstudy import figures, stats
from bnstudy.stats import Claim, paired_differences
from bnstudy.studies.kit import (
    EMA,
    PRECISE,
    Panel,
    Precondition,
    Published,
    arms,
    comparable,
    extended,
    in_order,
    learned,
    panels,
    select,
    sequence,
    values,
)

TASK = "train.classes_per_task"
LEARNED = 0.75  # of chance: the prequential error counts every example from the first one on
KEPT = 0.75  # of chance within a task, by PreciseBN: above it there is nothing that statistics hide
PUBLISHED = Published(
    "published", "Chiley et al. 2019",
    "Online Norm equals BN at batch 32 offline (CIFAR-10, ResNet-20, 92.3 against 92.2 % "
    "accuracy); no number for streams of tasks at this scale",
)  # fmt: skip


def streams(rows: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Runs that see one example at a time, and runs that see task after task."""
    return rows[rows[TASK].isna()], rows[rows[TASK].notna()]


def shape(table: pd.DataFrame) -> tuple[int, int]:
    """A row for each data set: prequential errors, then earlier tasks: error, forgetting, won."""
    return len(panels(table)), 5


def figure(table: pd.DataFrame, axes: np.ndarray) -> None:
    """Points by normalization."""
    for row, panel in zip(axes, panels(extended(table, {"arm": arms(table)})), strict=True):
        one, tasks = streams(panel.rows)
        for ax, rows, column, label, title in (
            (row[0], one, "online_error", "prequential error (%)", "one example at a time"),
            (row[1], tasks, "online_error", "prequential error (%)", "tasks one after another"),
            (row[2], tasks, "old_tasks_error_within", "error (%)",
             "earlier tasks, each among its classes"),
            (row[3], tasks, "forgetting_within", "accuracy lost (pp)", "forgotten of them"),
            (row[4], tasks, "statistics_loss_within", "accuracy won (pp)",
             "won by PreciseBN of all tasks"),
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


def within(rows: pd.DataFrame, what: str) -> list[Precondition]:
    """That every run has learned the earlier tasks once, and by PreciseBN kept a part of them."""
    two = extended(rows, {"num_classes": rows[TASK]})  # the classes among which it answers
    return [
        # half of chance, as everywhere
        learned(two, f"{what} learns each task", "learned_error_within"),
        learned(two, f"{what} keeps a part of it", "old_tasks_error_precise_within", KEPT),
    ]


def claims(table: pd.DataFrame) -> list[Claim]:
    """Statistics in forgetting; continual norm; batch norm one example at a time."""
    table = extended(table, {"arm": arms(table)})
    return [claim for panel in panels(table) for claim in _claims_of(panel)]


def _claims_of(panel: Panel) -> list[Claim]:
    one, tasks = streams(panel.rows)
    batch = select(tasks, {"arm": "batch"})
    present = [arm for arm in ("online", "continual", "group", "layer")
               if arm in set(panel.rows["arm"])]  # fmt: skip
    same = comparable(panel.rows)

    def more(rows: pd.DataFrame, metric: str, arm: str) -> dict[int, float]:
        """How much more of a metric batch norm has than another arm."""
        return paired_differences(*(values(rows, metric, {"arm": a}) for a in ("batch", arm)))

    forgets = panel.claims(
        panel.data, source="Pham et al. 2022", preconditions=[*within(batch, "batch norm"), same]
    )
    won = f"{EMA} minus {PRECISE}"
    found = sequence(
        forgets(
            "statistics",
            "after the tasks PreciseBN over all of them is more accurate on the earlier ones than "
            "the exponential average, each among its own classes",
            values(batch, "statistics_loss_within"), primary=panel.main,
            estimand=f"{won}, within tasks",
        ),
        forgets(
            "statistics, all classes", "so it is among all classes",
            values(batch, "statistics_loss"), estimand=won,
        ),
    )  # fmt: skip
    found += [
        forgets(
            f"forgetting, {arm}",
            f"batch forgets more than {figures.style_of(arm).label} norm, within tasks",
            more(tasks, "forgetting_within", arm), estimand=f"{EMA}, lost since its best",
        )
        for arm in ("continual", "group")
        if arm in present
    ]  # fmt: skip
    for arm in ("online", "group", "layer"):
        if arm not in present:
            continue
        rows, label = select(one, {"arm": arm}), f"{figures.style_of(arm).label} norm"
        ready = [learned(rows, f"{label}, one at a time", "online_error", LEARNED), same]
        errs = panel.claims(panel.data, source="Chiley et al. 2019", preconditions=ready)
        found.append(
            errs(
                f"batch 1, {arm}",
                f"one at a time, batch norm's prequential error exceeds {label}'s",
                more(one, "online_error", arm), estimand=f"prequential {EMA}",
            )
        )  # fmt: skip
    return found
