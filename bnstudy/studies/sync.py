"""Statistics of each process or of all (SyncBN), at an equal whole batch.

A demonstration and an identity, no verdicts: with two examples in each process an MLP's vectors
become signs, and synchronised statistics are those of the whole batch. Written before the first run
of the study's grid.
"""

import numpy as np
import pandas as pd

from bnstudy import figures, stats
from bnstudy.stats import Claim
from bnstudy.studies.drawing import bars, finish
from bnstudy.studies.kit import EMA, Published, filled, panels

PROCESSES, SYNC = "train.processes", "norm.sync"
SOURCE = "Wu & Johnson 2021, section 6"
PUBLISHED = Published(
    "published", "Wu & Johnson 2021, table 6",
    "Mask R-CNN heads, box AP, statistics of one GPU or of all",
    {"one image a GPU": 30.7, "two images a GPU": 40.1, "synchronised": 41.7},
)  # fmt: skip


def prepared(table: pd.DataFrame) -> pd.DataFrame:
    """With the columns that a grid of one process lacks."""
    return filled(table, {PROCESSES: 1, SYNC: False})


def shape(table: pd.DataFrame) -> tuple[int, int]:
    """A row for each data set and model: test error, training error, published."""
    return len(panels(table)), 3


def figure(table: pd.DataFrame, axes: np.ndarray) -> None:
    """Errors by number of processes, apart and synchronised."""
    for row, panel in zip(axes, panels(prepared(table)), strict=True):
        here = panel.rows
        for ax, metric, label in ((row[0], "test_error", "test error (%)"),
                                  (row[1], "train_error", "training error (%)")):  # fmt: skip
            one = here[PROCESSES] == 1
            curves = {
                name: stats.summarize(here[one | (here[SYNC] == sync)], PROCESSES, metric)
                for name, sync in (("statistics of each process", False), ("synchronised", True))
            }
            figures.series(ax, curves, PROCESSES, percent=True, xlabel="processes",
                           ylabel=label)  # fmt: skip
            finish(ax, panel.title)
        bars(row[2], PUBLISHED.values, (25, 44), "box AP")
        row[2].set_title("published: Mask R-CNN heads")


def claims(table: pd.DataFrame) -> list[Claim]:
    """What statistics apart lose at the most processes; equality when synchronised."""
    table = prepared(table)
    most = max(int(table[PROCESSES].max()), 2)  # also where only one process's runs are there
    one, apart = ({PROCESSES: n, SYNC: False} for n in (1, most))
    lost = PUBLISHED["one image a GPU"] - PUBLISHED["synchronised"]
    found = []
    for panel in panels(table):
        ready = panel.ready("one process", {PROCESSES: 1})
        claim = panel.claims(source=SOURCE, preconditions=ready, estimand=EMA)
        found += [
            claim(
                "apart",
                f"{most} processes with statistics of their own have a higher test error than one",
                panel.difference(apart, one), "demonstration",
                **PUBLISHED.cite(f"{lost:+.1f} AP, one image a GPU against synchronised"),
            ),
            *(
                claim(
                    f"synchronised, {n}",
                    f"{n} synchronised processes have the same test error as one",
                    panel.difference({PROCESSES: n, SYNC: True}, one), "identical",
                )
                for n in sorted(int(n) for n in panel.rows[PROCESSES].unique() if n > 1) or [most]
            ),
        ]  # fmt: skip
    return found
