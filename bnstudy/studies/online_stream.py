"""Prequential error and forgetting on streams (F12b: Online Norm, Continual Norm).

Primary claim: after a stream of tasks PreciseBN over all tasks has a higher accuracy on the earlier
ones than the exponential average. Written before the first run of the study's grid.
"""

import numpy as np
import pandas as pd

from bnstudy import figures, stats
from bnstudy.stats import Claim, paired_differences
from bnstudy.studies import arms, comparable, extended, select, titled, values

TASK, SIZE = "train.classes_per_task", "train.batch_size"
CHANCE = 0.9
PUBLISHED = {
    "what": "published: Online Norm equals BN at batch 32 offline (Chiley et al. 2019: CIFAR-10, "
    "ResNet-20, 92.3 against 92.2 % accuracy); no number for streams of tasks at this scale",
}


def shape(table: pd.DataFrame) -> tuple[int, int]:
    """A row for each data set: prequential error, old tasks, forgetting and its statistics."""
    return table["data.name"].nunique(), 4


def figure(table: pd.DataFrame, axes: np.ndarray) -> None:
    """Bars by normalization."""
    table = extended(table, arm=arms(table))
    for row, (data, here) in zip(axes, table.groupby("data.name"), strict=True):
        one, tasks = here[here[TASK].isna()], here[here[TASK].notna()]
        for ax, rows, column, label, title in (
            (row[0], one, "online_error", "prequential error (%)", "one example at a time"),
            (row[1], tasks, "online_error", "prequential error (%)", "tasks one after another"),
            (row[2], tasks, "forgetting", "accuracy lost (pp)", "forgetting of earlier tasks"),
            (row[3], tasks, "statistics_loss", "accuracy won (pp)",
             "PreciseBN of all tasks, earlier tasks"),
        ):  # fmt: skip
            _bars(ax, rows, column)
            ax.set_ylabel(label)
            ax.set_title(f"{titled(data, 'resnet')}: {title}", fontsize=7.5)


def _bars(ax, rows: pd.DataFrame, column: str) -> None:
    summary = stats.summarize(rows[rows[column].notna()], "arm", column).set_index("arm")
    names = [n for n in figures.STYLES if n in summary.index]
    for i, name in enumerate(names):
        mean, low, high = 100 * summary.loc[name, ["mean", "low", "high"]].astype(float)
        ax.errorbar(i, mean, yerr=[[mean - low], [high - mean]], color=figures.style_of(name).color,
                    marker=figures.style_of(name).marker, capsize=2)  # fmt: skip
    ax.set_xticks(range(len(names)), [figures.style_of(n).label for n in names], rotation=35,
                  ha="right", fontsize=6.5)  # fmt: skip
    ax.set_xlim(-0.6, len(names) - 0.4)


def learned(rows: pd.DataFrame, what: str) -> tuple[str, bool, str]:
    """The precondition that an arm's prequential error is below chance."""
    error = rows["online_error"].mean()
    return (f"{what} learns", bool(error < 0.75 * CHANCE), f"prequential error {100 * error:.1f} %")


def claims(table: pd.DataFrame) -> list[Claim]:
    """Statistics in forgetting; continual norm; batch norm one example at a time."""
    table = extended(table, arm=arms(table))
    found = []
    for number, (data, here) in enumerate(table.groupby("data.name")):
        one, tasks = here[here[TASK].isna()], here[here[TASK].notna()]
        present = set(here["arm"])
        where = titled(data, "resnet")
        ready = [comparable(here), learned(select(one, arm="layer"), "layer norm, one at a time")]
        found.append(
            Claim(
                name=f"{data}: statistics", kind="greater", primary=not number,
                values=values(select(tasks, arm="batch"), "statistics_loss"),
                text=f"{where}: after the tasks PreciseBN over all of them is more accurate on the "
                "earlier ones than the exponential average",
                source="Pham et al. 2022", preconditions=ready[:1],
            )
        )  # fmt: skip
        for arm in ("continual", "group"):
            if arm in present:
                found.append(
                    Claim(
                        name=f"{data}: forgetting, {arm}", kind="greater",
                        values=paired_differences(
                            values(select(tasks, arm="batch"), "forgetting"),
                            values(select(tasks, arm=arm), "forgetting"),
                        ),
                        text=f"{where}: batch forgets more than {figures.style_of(arm).label} norm",
                        source="Pham et al. 2022", preconditions=ready[:1],
                    )
                )  # fmt: skip
        for arm in ("online", "group", "layer"):
            if arm in present:
                found.append(
                    Claim(
                        name=f"{data}: batch 1, {arm}", kind="greater",
                        values=paired_differences(
                            values(select(one, arm="batch"), "online_error"),
                            values(select(one, arm=arm), "online_error"),
                        ),
                        text=f"{where}: one at a time, batch norm's prequential error exceeds "
                        f"{figures.style_of(arm).label} norm's",
                        source="Chiley et al. 2019", preconditions=ready,
                    )
                )  # fmt: skip
    return found
