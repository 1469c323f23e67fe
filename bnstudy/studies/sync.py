"""Statistics of each process or of all (SyncBN), at an equal whole batch.

Primary claim: the most processes, with statistics of their own, have a higher test error than one
process with the whole batch. Written before the first run of the study's grid.
"""

import numpy as np
import pandas as pd

from bnstudy import figures, stats
from bnstudy.stats import Claim, paired_differences
from bnstudy.studies import comparable, extended, panels, select, titled, trained, values

PROCESSES, SYNC = "train.processes", "norm.sync"
MARGIN = 1.0  # pp
SOURCE = "Wu & Johnson 2021, section 6"
PUBLISHED = {
    "what": "published: Mask R-CNN heads, box AP, statistics of one GPU or of all "
    "(Wu & Johnson 2021, table 6)",
    "one image a GPU": 30.7,
    "two images a GPU": 40.1,
    "synchronised": 41.7,
}


def prepared(table: pd.DataFrame) -> pd.DataFrame:
    """With the columns that a grid of one process lacks."""
    for column, neutral in ((PROCESSES, 1), (SYNC, False)):
        filled = table[column] if column in table else pd.Series(neutral, index=table.index)
        table = extended(table, **{column: filled.fillna(neutral).infer_objects()})
    return table


def shape(table: pd.DataFrame) -> tuple[int, int]:
    """A row for each data set and model: test error, training error, published."""
    return len(panels(table)), 3


def figure(table: pd.DataFrame, axes: np.ndarray) -> None:
    """Errors by number of processes, apart and synchronised."""
    table = prepared(table)
    for row, (data, model) in zip(axes, panels(table), strict=True):
        here = select(table, data__name=data, model__name=model)
        for ax, metric, label in ((row[0], "test_error", "test error (%)"),
                                  (row[1], "train_error", "training error (%)")):  # fmt: skip
            one = here[here[PROCESSES] == 1]
            curves = {
                name: stats.summarize(
                    pd.concat([one, here[(here[PROCESSES] > 1) & (here[SYNC] == sync)]]),
                    PROCESSES, metric,
                )
                for name, sync in (("statistics of each process", False), ("synchronised", True))
            }  # fmt: skip
            figures.series(ax, curves, PROCESSES, percent=True, xlabel="processes",
                           ylabel=label)  # fmt: skip
            ax.legend(fontsize=6.5)
            ax.set_title(titled(data, model))
        names = [k for k in PUBLISHED if k != "what"]
        row[2].barh(range(len(names)), [PUBLISHED[k] for k in names], color="#0072B2")
        row[2].set_yticks(range(len(names)), names)
        row[2].set_xlim(25, 44)
        row[2].set_xlabel("box AP")
        row[2].set_title("published: Mask R-CNN heads")


def claims(table: pd.DataFrame) -> list[Claim]:
    """The loss apart, and the equality when synchronised, at the most processes."""
    table = prepared(table)
    most = max(int(table[PROCESSES].max()), 2)  # also where only one process's runs are there
    found = []
    for number, (data, model) in enumerate(panels(table)):
        here = select(table, data__name=data, model__name=model)
        cell = lambda n, sync, rows=here: values(  # noqa: E731
            rows[(rows[PROCESSES] == n) & (rows[SYNC] == sync)], "test_error"
        )
        ready = [trained(here[here[PROCESSES] == 1], "one process"), comparable(here)]
        where, common = titled(data, model), {"source": SOURCE, "preconditions": ready}
        found += [
            Claim(
                name=f"{data} {model}: apart", kind="greater", primary=not number,
                values=paired_differences(cell(most, False), cell(1, False)),
                text=f"{where}: {most} processes with statistics of their own have a higher test "
                "error than one",
                published="-11.0 AP, one image a GPU against synchronised (published)", **common,
            ),
            Claim(
                name=f"{data} {model}: synchronised", kind="equivalent", threshold=MARGIN,
                values=paired_differences(cell(most, True), cell(1, False)),
                text=f"{where}: {most} synchronised processes are within {MARGIN:g} pp of one",
                **common,
            ),
        ]  # fmt: skip
    return found
