"""Batches of few classes: what leaks through the statistics (Ioffe 2017, section 4.3).

Primary claim: trained with one class a batch, the error by population statistics exceeds that by
statistics of equally composed batches. Written before the first run of the study's grid.
"""

import numpy as np
import pandas as pd

from bnstudy import figures, stats
from bnstudy.stats import Claim, paired_differences
from bnstudy.studies.drawing import bars, finish, zero
from bnstudy.studies.kit import Published, arms, extended, filled, panels

CLASSES = "train.classes_per_batch"
XLABEL = "classes in a batch"
SOURCE = "Ioffe 2017, section 4.3"
PUBLISHED = Published(
    "published", SOURCE,
    "accuracies in %: Inception-v3 on ImageNet, batches of 16 labels x 2 images",
    {
        "fair batches": 78.3,
        "batch, population": 67.0,
        "batch, equally composed": 76.5,
        "batch, halves": 77.4,
        "renorm": 78.5,
    },
)  # fmt: skip


def prepared(table: pd.DataFrame) -> pd.DataFrame:
    """With the arm's name; batch norm on halves of the batch is `ghost`."""
    halves = filled(table, {"norm.group_size": None})["norm.group_size"].notna()
    leak = table["test_error"] - table["composition_error"]
    return extended(table, {"arm": arms(table).mask(halves, "ghost"), "leak": leak})


def shape(table: pd.DataFrame) -> tuple[int, int]:
    """A row for each data set and model: error, leak, and the published numbers."""
    return len(panels(table)), 3


def figure(table: pd.DataFrame, axes: np.ndarray) -> None:
    """Test error and leak by classes in a batch; published accuracies."""
    for row, panel in zip(axes, panels(prepared(table)), strict=True):
        summary = stats.summarize(panel.rows, ["arm", CLASSES], "test_error")
        figures.curves(row[0], summary, CLASSES, "arm", percent=True, xlabel=XLABEL,
                       ylabel="test error, population (%)")  # fmt: skip
        finish(row[0], panel.title)
        leaking = panel.rows[panel.rows["leak"].notna()]
        summary = stats.summarize(leaking, ["arm", CLASSES], "leak")
        figures.curves(row[1], summary, CLASSES, "arm", percent=True, xlabel=XLABEL,
                       ylabel="population minus oracle (pp)")  # fmt: skip
        zero(row[1])
        row[1].set_title("leak: oracle = equally composed batches")
        bars(row[2], PUBLISHED.values, (60, 82), "accuracy (%)")
        row[2].set_title("published: ImageNet, 16 x 2")


def claims(table: pd.DataFrame) -> list[Claim]:
    """Leak of batch norm with the fewest classes; what halves and renorm do; raw error."""
    table = prepared(table)
    few, all_ = int(table[CLASSES].min()), int(table[CLASSES].max())
    found = []
    for panel in panels(table):

        def leak(arm, panel=panel):
            return panel.cell("leak", {"arm": arm, CLASSES: few})

        def rise(arm, panel=panel):
            return panel.difference({"arm": arm, CLASSES: few}, {"arm": arm, CLASSES: all_})

        fair = {"arm": "batch", CLASSES: all_}
        ready = panel.ready(f"batch norm, {all_} classes a batch", fair)
        claim = panel.claims(source=SOURCE, preconditions=ready)
        present = set(panel.rows["arm"])
        found.append(
            claim(
                "leak",
                f"with {few} class a batch, batch norm's error by population statistics exceeds "
                "that by statistics of equally composed batches",
                leak("batch"), primary=panel.main,
                **PUBLISHED.cite(
                    "{} pp on ImageNet, 16 x 2",
                    PUBLISHED["batch, equally composed"] - PUBLISHED["batch, population"],
                ),
            )
        )  # fmt: skip
        for arm in ("ghost", "renorm"):
            if arm in present:
                found.append(
                    claim(
                        f"{arm} leaks less",
                        f"{figures.style_of(arm).label} norm leaks less than batch norm",
                        paired_differences(leak("batch"), leak(arm)),
                    )
                )
        if "group" in present:
            found.append(
                claim(
                    "raw error", "few classes raise batch norm's error more than group norm's",
                    paired_differences(rise("batch"), rise("group")),
                    expected="either way: both forget",
                )
            )  # fmt: skip
    return found
