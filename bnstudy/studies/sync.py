"""Statistics of each process or of all (SyncBN), at an equal whole batch.

A demonstration and an identity, no verdicts: with two examples in each process an MLP's vectors
become signs, and synchronised statistics are those of the whole batch. Written before the first run
of the study's grid.
"""

import pandas as pd

from bnstudy import figures
from bnstudy.stats import Claim
from bnstudy.studies.drawing import curve, differences, reported
from bnstudy.studies.kit import EMA, Panel, Published, filled, panels

PROCESSES, SYNC = "train.processes", "norm.sync"
APART, TOGETHER = figures.hue(0), figures.hue(1)
SOURCE = "Wu & Johnson 2021, section 6"
PUBLISHED = Published(
    "published", "Wu & Johnson 2021, table 6",
    "Mask R-CNN heads, box AP, statistics of one GPU or of all",
    {"one image a GPU": 30.7, "two images a GPU": 40.1, "synchronised": 41.7},
)  # fmt: skip


def prepared(table: pd.DataFrame) -> pd.DataFrame:
    """With the columns that a grid of one process lacks."""
    return filled(table, {PROCESSES: 1, SYNC: False})


def headline(table: pd.DataFrame) -> list[figures.Panel]:
    """Test error by processes, apart and synchronised; the published loss of box AP."""
    main, *_ = panels(prepared(table))
    published = [
        reported(PUBLISHED, name, value, style=style)
        for (name, value), style in zip(
            PUBLISHED.values.items(), (APART, APART, TOGETHER), strict=True
        )
    ]
    return [
        _by_processes(main, "test_error", "test error (%)"),
        _lost(main),
        figures.Panel(
            "Mask R-CNN heads, COCO", published, ylabel="box AP (%)", kind="dots", ceiling=100
        ),
    ]


def details(table: pd.DataFrame) -> list[figures.Panel]:
    """Training error by processes, and test error of other data."""
    found = []
    for panel in panels(prepared(table)):
        if not panel.main:
            found += [_by_processes(panel, "test_error", "test error (%)"), _lost(panel)]
        found.append(_by_processes(panel, "train_error", "training error (%)"))
    return found


def _by_processes(panel: Panel, metric: str, ylabel: str) -> figures.Panel:
    """A metric over the number of processes; one process stands in both curves."""
    one = panel.rows[PROCESSES] == 1
    curves = [
        curve(panel.rows[one | (panel.rows[SYNC] == sync)], PROCESSES, metric, style=style,
              label=label)
        for label, sync, style in (("statistics of each process", False, APART),
                                   ("synchronised", True, TOGETHER))
    ]  # fmt: skip
    return figures.Panel(panel.title, curves, "processes", ylabel, ceiling=100)


def _lost(panel: Panel) -> figures.Panel:
    """What several processes have more than one."""
    rows, styles = {}, []
    for sync, style, what in ((False, APART, "apart"), (True, TOGETHER, "synchronised")):
        for n in sorted(int(n) for n in panel.rows[PROCESSES].unique() if n > 1):
            rows[f"{n} {what}"] = panel.difference({PROCESSES: n, SYNC: sync}, {PROCESSES: 1})
            styles.append(style)
    return differences("difference from one process", rows, styles, claim=f"{panel.key}: apart")


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
