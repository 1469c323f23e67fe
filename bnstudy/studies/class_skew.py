"""Batches of few classes: what leaks through the statistics (Ioffe 2017, section 4.3).

Primary claim: trained in batches of two images of each of half the classes, Ioffe's design, batch
norm's error by population statistics exceeds that by statistics of equally composed batches. One
and two classes a batch are beside it; where an arm does not learn, nothing is concluded. Written
before the first run of this version of the study's grid.
"""

import numpy as np
import pandas as pd

from bnstudy import figures, stats
from bnstudy.stats import Claim, paired_differences
from bnstudy.studies.drawing import bars, finish, zero
from bnstudy.studies.kit import (
    BATCH,
    EMA,
    Panel,
    Precondition,
    Published,
    arms,
    chance,
    extended,
    filled,
    learned,
    panels,
    select,
    sequence,
)

CLASSES = "train.classes_per_batch"
XLABEL = "classes in a batch"
LEARNED = 0.75  # of chance, test error at most: above it an arm has nothing to leak or to lose
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
        guess = 100 * float(chance(panel.rows).max())
        row[0].axhline(guess, color="black", linewidth=0.8, linestyle=":", label="chance")
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
    """Leak of batch norm, most classes first; what halves and renorm do; raw error."""
    return [claim for panel in panels(prepared(table)) for claim in _claims_of(panel)]


def _claims_of(panel: Panel) -> list[Claim]:
    fair, *skewed = sorted((int(n) for n in panel.rows[CLASSES].unique()), reverse=True)
    each = int(panel.rows["train.batch_size"].iloc[0])
    present = set(panel.rows["arm"])

    def at(arm: str, classes: int) -> dict[str, object]:
        return {"arm": arm, CLASSES: classes}

    def leak(arm: str, classes: int) -> dict[int, float]:
        return panel.cell("leak", at(arm, classes))

    def ready(*names: str, classes: int) -> list[Precondition]:
        """The fair reference has trained; these arms answer better than by chance."""
        there = [select(panel.rows, at(name, classes)) for name in names]
        learn = [
            learned(rows, f"{name} norm, {classes} a batch", "test_error", LEARNED)
            for name, rows in zip(names, there, strict=True)
        ]
        return [*panel.ready(f"batch norm, {fair} classes a batch", at("batch", fair)), *learn]

    claim = panel.claims(source=SOURCE, estimand=f"{EMA} minus {BATCH}, equally composed")
    accuracies = PUBLISHED["batch, equally composed"], PUBLISHED["batch, population"]
    found = sequence(*(
        claim(
            f"leak, {few}",
            f"with {few} of {fair} classes in batches of {each}, batch norm's error by population "
            "statistics exceeds that by statistics of equally composed batches",
            leak("batch", few), primary=panel.main and few == skewed[0],
            preconditions=ready("batch", classes=few),
            **PUBLISHED.cite("{} pp on ImageNet, 16 x 2", accuracies[0] - accuracies[1]),
        )
        for few in skewed
    ))  # fmt: skip
    found += [
        claim(
            f"{arm} leaks less, {skewed[0]}",
            f"there {figures.style_of(arm).label} norm leaks less than batch norm",
            paired_differences(leak("batch", skewed[0]), leak(arm, skewed[0])),
            preconditions=ready("batch", arm, classes=skewed[0]),
        )
        for arm in ("ghost", "renorm")
        if arm in present
    ]
    if "group" in present:
        found += [
            claim(
                f"raw error, {few}",
                f"{few} classes a batch raise batch norm's error more than group norm's",
                paired_differences(*(
                    panel.difference(at(arm, few), at(arm, fair)) for arm in ("batch", "group")
                )),
                estimand=EMA, expected="either way: both forget",
                preconditions=ready("batch", "group", classes=few),
            )
            for few in skewed
        ]  # fmt: skip
    return found
